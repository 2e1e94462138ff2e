//! The command `sandscope`.
//!
//! Nothing but the call: what is asynchronous is compiled where it is run, and would be a second time, for minutes, if that was here.

fn main() -> std::process::ExitCode {
    sandscope::cli::main()
}
