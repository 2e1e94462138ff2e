// Lines on standard output and standard error. A sandbox may have closed them, which is no reason
// to stop serving: `process.stdout` would report that as an error event some time later, and takes
// longer to load.

import { writeSync } from 'node:fs';

export function print(line) {
    write(1, line);
}

export function note(line) {
    write(2, line);
}

function write(descriptor, line) {
    try {
        writeSync(descriptor, `${line}\n`);
    } catch {
        // There is nowhere to say it.
    }
}
