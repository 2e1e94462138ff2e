// Work on threads of its own, so that other requests are answered and signals heeded meanwhile.
//
// A thread is started when there is work that no idle one can take, and kept: starting one takes
// longer than many a piece of work. An idle one sleeps until the next message.

import { Worker } from 'node:worker_threads';

/** Threads that work at the same time; more work waits. */
const MAX_THREADS = 64;

const idle = [];
const waiting = [];
let threads = 0;

/** Has a piece of work of `worker.js` done; returns what it returns. */
export function work(name, number) {
    return new Promise((resolve, reject) => {
        const piece = { name, number, resolve, reject };
        const worker = idle.pop() ?? (threads < MAX_THREADS ? newWorker() : undefined);
        if (worker === undefined) {
            waiting.push(piece);
        } else {
            worker.take(piece);
        }
    });
}

function newWorker() {
    const thread = new Worker(new URL('./worker.js', import.meta.url));
    threads += 1;
    let current;
    const worker = {
        take(piece) {
            current = piece;
            thread.postMessage({ name: piece.name, number: piece.number });
        },
    };
    thread.on('message', ({ done, failed }) => {
        if (failed === undefined) {
            current.resolve(done);
        } else {
            current.reject(new Error(failed));
        }
        const next = waiting.shift();
        if (next === undefined) {
            idle.push(worker);
        } else {
            worker.take(next);
        }
    });
    // Threads end only when they can't go on, such as for want of memory.
    thread.once('error', (error) => {
        threads -= 1;
        current.reject(error);
        if (waiting.length > 0) {
            newWorker().take(waiting.shift());
        }
    });
    return worker;
}
