// Allocating, touching and freeing memory.

import { MessageChannel } from 'node:worker_threads';

/** Distance of the bytes that are written: the smallest page of the architectures in use. */
const PAGE_BYTES = 4096;

/**
 * Size from which the C library asks the kernel for every allocation of its own. Smaller ones may
 * come from memory that it has kept, and would stay there afterwards.
 */
const FROM_KERNEL_BYTES = 33 * 2 ** 20;

/**
 * Bytes that one view covers: engines bound the length of views more tightly than that of buffers.
 */
const VIEW_BYTES = 2 ** 30;

/**
 * Allocates some MiB, writes one byte to each page, gives them back, and returns the number of
 * pages.
 */
export async function touchMemory(mib) {
    const bytes = mib * 2 ** 20;
    const memory = allocate(mib, Math.max(bytes, FROM_KERNEL_BYTES));
    let pages = 0;
    for (let start = 0; start < bytes; start += VIEW_BYTES) {
        const view = new Uint8Array(memory, start, Math.min(VIEW_BYTES, bytes - start));
        for (let at = 0; at < view.length; at += PAGE_BYTES) {
            view[at] = 1;
            pages += 1;
        }
    }
    await free(memory);
    return pages;
}

function allocate(mib, bytes) {
    try {
        return new ArrayBuffer(bytes);
    } catch (error) {
        throw new Error(`the kernel refuses ${mib} MiB of memory: Cannot allocate memory`, {
            cause: error,
        });
    }
}

/**
 * Gives the memory back to the kernel now. The garbage collector would at a time of its own choice:
 * instead, the buffer is moved into a message that nobody can receive any more, and which goes when
 * the channel does.
 */
async function free(memory) {
    const { port1, port2 } = new MessageChannel();
    const closed = new Promise((resolve) => port2.once('close', resolve));
    port1.postMessage(memory, [memory]);
    port1.close();
    port2.close();
    await closed;
}
