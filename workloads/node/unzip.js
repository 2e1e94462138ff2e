// Extracting an archive that may be hostile: nothing is written outside the scratch directory or
// beyond the limits.

import { createWriteStream } from 'node:fs';
import { mkdir, open, readdir, realpath, rm } from 'node:fs/promises';
import path from 'node:path';
import { pipeline } from 'node:stream/promises';
import { createInflateRaw } from 'node:zlib';
import { Checksum } from './checksum.js';
import { regularFileBytes } from './static_file.js';
import { DEFLATED, contentRange, readDirectory } from './zip.js';

/**
 * How much may be extracted: the sum of the lengths of all files; the number of files and
 * directories.
 */
const DEFAULT_LIMITS = { bytes: 2 ** 30, entries: 65_536 };

/** Bytes that are read from the archive, or come out of it, at a time. */
const CHUNK_BYTES = 256 * 1024;

// Two requests at a time would delete each other's files.
let turn = Promise.resolve();

/**
 * Empties the directory `scratch`, makes it if need be, extracts the archive to it, and returns the
 * number of files and the sum of their lengths. A look at the archive's directory comes first, so
 * an archive that is refused for what that says leaves `scratch` as it was.
 */
export function extract(archive, scratch, limits = DEFAULT_LIMITS) {
    const extraction = turn.then(() => extractAlone(archive, scratch, limits));
    turn = extraction.catch(() => undefined);
    return extraction;
}

async function extractAlone(archive, scratch, limits) {
    const archiveBytes = await regularFileBytes(archive);
    const file = await open(archive);
    try {
        const entries = await readDirectory(file, archiveBytes, limits.entries);
        check(entries, limits);
        await empty(scratch, archive);
        const done = { files: 0, bytes: 0 };
        for (const entry of entries) {
            const target = path.join(scratch, entry.name);
            if (entry.name.endsWith('/')) {
                await mkdir(target, { recursive: true });
                continue;
            }
            await mkdir(path.dirname(target), { recursive: true });
            await extractFile(file, archiveBytes, entry, target);
            done.files += 1;
            done.bytes += entry.bytes;
        }
        return done;
    } catch (error) {
        throw new Error(`can't extract ${archive}: ${error.message}`, { cause: error });
    } finally {
        await file.close();
    }
}

/** Writes one file, of the length that the archive's directory claims and not a byte more. */
async function extractFile(file, archiveBytes, entry, target) {
    const { start, end } = await contentRange(file, archiveBytes, entry);
    const checksum = new Checksum();
    let left = entry.bytes;
    const verified = async function* (chunks) {
        for await (const chunk of chunks) {
            // The archive's directory may have lied.
            left -= chunk.length;
            if (left < 0) {
                break;
            }
            checksum.add(chunk);
            yield chunk;
        }
        if (left !== 0 || checksum.value() !== entry.checksum) {
            throw new Error(
                `${JSON.stringify(entry.name)} has another length or checksum than it should`,
            );
        }
    };
    const steps = [readRange(file, start, end)];
    if (entry.method === DEFLATED) {
        steps.push(createInflateRaw({ chunkSize: CHUNK_BYTES }));
    }
    await pipeline(...steps, verified, createWriteStream(target, { flags: 'wx' }));
}

async function* readRange(file, start, end) {
    while (start < end) {
        const chunk = Buffer.allocUnsafe(Math.min(CHUNK_BYTES, end - start));
        const { bytesRead } = await file.read(chunk, 0, chunk.length, start);
        if (bytesRead === 0) {
            throw new Error('the archive became shorter');
        }
        start += bytesRead;
        yield chunk.subarray(0, bytesRead);
    }
}

/** Refuses an archive for what its directory says. */
function check(entries, limits) {
    let left = limits.bytes;
    for (const { name, bytes, isFileOrDirectory } of entries) {
        if (!staysBelow(name)) {
            throw new Error(`the name ${JSON.stringify(name)} could lead out of the directory`);
        }
        if (!isFileOrDirectory) {
            throw new Error(`${JSON.stringify(name)} is neither a file nor a directory`);
        }
        left -= bytes;
        if (left < 0) {
            throw new Error(`it holds more than ${limits.bytes} bytes`);
        }
    }
}

/** Tells whether a name leads to a place below the directory that it is joined to. */
function staysBelow(name) {
    return !/^\/|[\\\0]/.test(name) && !name.split('/').includes('..');
}

/** Makes `scratch` an empty directory. The directory itself stays: it may be a mount point. */
async function empty(scratch, archive) {
    try {
        await mkdir(scratch, { recursive: true });
        const real = await realpath(scratch);
        for (const precious of [await realpath(archive), process.cwd()]) {
            const relative = path.relative(real, precious);
            if (relative !== '..' && !relative.startsWith('../')) {
                throw new Error(`it holds ${precious}, so --scratch must name another directory`);
            }
        }
        for (const name of await readdir(real)) {
            await rm(path.join(real, name), { recursive: true });
        }
    } catch (error) {
        throw new Error(`can't empty ${scratch}: ${error.message}`, { cause: error });
    }
}
