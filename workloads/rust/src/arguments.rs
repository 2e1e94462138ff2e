//! The command line. `lexopt` rather than `clap`: the size of this program is part of what a cold start costs.

use crate::{callback::CallbackUrl, endpoint::Files};
use std::{ffi::OsString, path::PathBuf};

/// How the program is called.
pub const USAGE: &str = "\
usage: sandscope-workload CALLBACK-URL|ignore [--port 8080] [--static-file PATH] [--scratch DIRECTORY]

  CALLBACK-URL          gets one GET request as soon as the server listens, such as http://10.0.0.1:3000/ready/7;
                        the word `ignore` stands for no callback
  --port N              TCP port to listen on, 0 for any free one [default: 8080]
  --static-file PATH    file that /static and /read deliver and /unzip extracts [default: static_file]
  --scratch DIRECTORY   directory that /unzip empties and extracts to [default: unzipped]";

/// What the command line asks for.
#[derive(Debug)]
pub enum Command {
    /// To serve.
    Serve(Arguments),
    /// To print [`USAGE`].
    Help,
}

/// How to serve.
#[derive(Debug)]
pub struct Arguments {
    /// Where to report readiness, if anywhere.
    pub callback: Option<CallbackUrl>,
    /// TCP port; 0 lets the kernel choose.
    pub port: u16,
    /// What the file endpoints work on.
    pub files: Files,
}

/// Parses the arguments that follow the program's name.
///
/// # Errors
/// A sentence that says which argument is wrong and what it should be.
pub fn parse(arguments: impl IntoIterator<Item = OsString>) -> Result<Command, String> {
    use lexopt::Arg::{Long, Short, Value};

    let mut parser = lexopt::Parser::from_args(arguments);
    let mut callback = None;
    let mut port = 8080;
    let mut static_file = PathBuf::from("static_file");
    let mut scratch = PathBuf::from("unzipped");
    while let Some(argument) = parser.next().map_err(|error| error.to_string())? {
        match argument {
            Value(value) if callback.is_none() => callback = Some(value),
            Long("port") => port = port_from(&value_of("--port", &mut parser)?)?,
            Long("static-file") => static_file = path_from("--static-file", &mut parser)?,
            Long("scratch") => scratch = path_from("--scratch", &mut parser)?,
            Long("help") | Short('h') => return Ok(Command::Help),
            unexpected => return Err(unexpected.unexpected().to_string()),
        }
    }
    let callback = callback.ok_or("the callback URL is missing; use `ignore` for none")?;
    let callback = match callback.to_str() {
        Some("ignore") => None,
        Some(url) => Some(url.parse()?),
        None => return Err(format!("the callback URL {callback:?} is not UTF-8")),
    };
    Ok(Command::Serve(Arguments { callback, port, files: Files { static_file, scratch } }))
}

fn value_of(flag: &str, parser: &mut lexopt::Parser) -> Result<OsString, String> {
    parser.value().map_err(|_| format!("{flag} needs a value"))
}

fn path_from(flag: &str, parser: &mut lexopt::Parser) -> Result<PathBuf, String> {
    let path = value_of(flag, parser)?;
    if path.is_empty() {
        return Err(format!("{flag} needs a path that is not empty"));
    }
    Ok(path.into())
}

fn port_from(value: &OsString) -> Result<u16, String> {
    value
        .to_str()
        .and_then(|text| text.parse().ok())
        .ok_or_else(|| format!("--port is {value:?}: it must be a whole number from 0 to 65535"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(arguments: &[&str]) -> Result<Command, String> {
        super::parse(arguments.iter().map(Into::into))
    }

    fn arguments(list: &[&str]) -> Arguments {
        match parse(list).unwrap() {
            Command::Serve(arguments) => arguments,
            Command::Help => panic!("{list:?} asks for help"),
        }
    }

    #[test]
    fn only_the_callback_is_required() {
        let arguments = arguments(&["ignore"]);
        assert!(arguments.callback.is_none());
        assert_eq!(arguments.port, 8080);
        assert_eq!(arguments.files.static_file, PathBuf::from("static_file"));
        assert_eq!(arguments.files.scratch, PathBuf::from("unzipped"));
    }

    #[test]
    fn flags_may_stand_on_both_sides_of_the_callback() {
        let arguments =
            arguments(&["--port=81", "http://10.0.0.1:3000/ready/7", "--static-file", "/a", "--scratch", "/b"]);
        assert_eq!(arguments.callback.unwrap().to_string(), "http://10.0.0.1:3000/ready/7");
        assert_eq!(arguments.port, 81);
        assert_eq!(arguments.files.static_file, PathBuf::from("/a"));
        assert_eq!(arguments.files.scratch, PathBuf::from("/b"));
    }

    #[test]
    fn mistakes_are_named() {
        for (list, part) in [
            (&[][..], "callback URL is missing"),
            (&["ignore", "--port"], "--port needs a value"),
            (&["ignore", "--port", "65536"], "--port is \"65536\""),
            (&["ignore", "--port", "x"], "from 0 to 65535"),
            (&["ignore", "--scratch", ""], "--scratch needs a path"),
            (&["ignore", "--frob"], "--frob"),
            (&["ignore", "more"], "more"),
        ] {
            let error = parse(list).unwrap_err();
            assert!(error.contains(part), "{list:?}: {error}");
        }
    }

    #[test]
    fn help_is_no_mistake() {
        assert!(matches!(parse(&["--help"]).unwrap(), Command::Help));
    }
}
