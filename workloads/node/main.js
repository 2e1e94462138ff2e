// The workload that runs inside a sandbox: a small HTTP server that does one kind of work per
// endpoint and reports by a callback that it is ready. The contract that it shares with the
// workloads in other languages is in workloads/README.md.
//
// It needs nothing but Node. What is not needed to serve the first request is imported when it is,
// and this file has no static imports because those would be loaded before its first line, which is
// the start of `main`.

const start = process.hrtime.bigint();

// As process 1 of a container nothing but an installed handler ends the process on these signals.
// This thread is free to run it at any time, since all that computes does so on other threads.
for (const signal of ['SIGTERM', 'SIGINT']) {
    process.on(signal, () => process.exit(0));
}

const { UsageError, parseArguments, usage } = await import('./arguments.js');
const { print, note } = await import('./output.js');

/** Says how to serve, or ends the process. */
function argumentsOrExit() {
    try {
        const parsed = parseArguments(process.argv.slice(2));
        if (parsed !== 'help') {
            return parsed;
        }
        print(usage);
        return process.exit(0);
    } catch (error) {
        if (!(error instanceof UsageError)) {
            throw error;
        }
        note(`${error.message}\n${usage}`);
        return process.exit(2);
    }
}

const { callback, port, files } = argumentsOrExit();
const { listen } = await import('./server.js');
let address;
try {
    address = await listen(port, files);
} catch (error) {
    note(`error: can't listen on 0.0.0.0:${port} (--port takes another port): ${error.message}`);
    process.exit(1);
}
const sinceMain = process.hrtime.bigint() - start;
print(`listening on ${address}`);
if (callback) {
    const { sendCallback } = await import('./callback.js');
    try {
        await sendCallback(callback, sinceMain);
    } catch (error) {
        note(`the callback to ${callback.text} failed: ${error.message}`);
    }
}
