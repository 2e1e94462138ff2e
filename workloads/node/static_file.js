// The static file: read whole, or streamed as the body of a response.

import { open, readFile, stat } from 'node:fs/promises';
import { pipeline } from 'node:stream/promises';

/** Bytes of the file that are read at a time. */
const CHUNK_BYTES = 256 * 1024;

/** Reads the whole file into memory and returns its number of bytes. */
export async function readStatic(path) {
    await regularFileBytes(path);
    const content = await readFile(path);
    return content.length;
}

/**
 * Sends the file, at the length that it has now, as body of a response. It throws only if nothing
 * was sent.
 */
export async function sendStatic(response, path) {
    const bytes = await regularFileBytes(path);
    const file = await open(path);
    response.writeHead(200, {
        'Content-Type': 'application/octet-stream',
        'Content-Length': bytes,
        Date: new Date().toUTCString(),
    });
    if (bytes === 0) {
        response.end();
        await file.close();
        return;
    }
    const source = file.createReadStream({ end: bytes - 1, highWaterMark: CHUNK_BYTES });
    const exactly = async function* (chunks) {
        let left = bytes;
        for await (const chunk of chunks) {
            left -= chunk.length;
            yield chunk;
        }
        if (left > 0) {
            throw new Error('the file became shorter');
        }
    };
    try {
        await pipeline(source, exactly, response);
    } catch {
        // The connection is broken, by the client or by what failed here: there is no other way to
        // say it.
    }
}

/** Length of a regular file. Anything else might block or never end. */
export async function regularFileBytes(path) {
    const status = await stat(path);
    if (!status.isFile()) {
        throw new Error(`can't read ${path}: it is not a regular file`);
    }
    return status.size;
}
