// What a thread does: one piece of work per message.

import { parentPort } from 'node:worker_threads';
import { fibonacci, fourierTransformTime, matrixSquareTime } from './compute.js';
import { touchMemory } from './memory.js';

const WORK = {
    fib: (n) => String(fibonacci(n)),
    fft: (n) => `${fourierTransformTime(n)} ns`,
    matrix: (n) => `${matrixSquareTime(n)} ns`,
    alloc: async (mib) => `${await touchMemory(mib)} pages`,
};

parentPort.on('message', async ({ name, number }) => {
    try {
        parentPort.postMessage({ done: await WORK[name](number) });
    } catch (error) {
        parentPort.postMessage({ failed: error.message });
    }
});
