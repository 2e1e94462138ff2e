import assert from 'node:assert/strict';
import { mkdtemp, rm, stat, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { afterEach, beforeEach, test } from 'node:test';
import { Checksum, byTable } from '../checksum.js';
import { extract } from '../unzip.js';

let directory;
beforeEach(async () => (directory = await mkdtemp(path.join(tmpdir(), 'unzip-'))));
afterEach(() => rm(directory, { recursive: true }));

/** Writes an archive with one stored file and claims about it that may be wrong; returns its path. */
async function writeArchive({
    content,
    bytes = content.length,
    count = 1,
    before = '',
    after = '',
}) {
    const name = Buffer.from('name');
    const local = Buffer.alloc(30);
    const entry = Buffer.alloc(46);
    const end = Buffer.alloc(22);
    local.writeUInt32LE(0x04034b50, 0);
    entry.writeUInt32LE(0x02014b50, 0);
    end.writeUInt32LE(0x06054b50, 0);
    // What both headers say, which stands 2 bytes later in the second.
    for (const [header, shift] of [
        [local, 0],
        [entry, 2],
    ]) {
        header.writeUInt32LE(byTable(content, 0), 14 + shift);
        header.writeUInt32LE(content.length, 18 + shift);
        header.writeUInt32LE(bytes, 22 + shift);
        header.writeUInt16LE(name.length, 26 + shift);
    }
    end.writeUInt16LE(count, 10);
    end.writeUInt32LE(entry.length + name.length, 12);
    end.writeUInt32LE(local.length + name.length + content.length, 16);
    end.writeUInt16LE(after.length, 20);
    const archive = path.join(directory, 'archive');
    const parts = [before, local, name, content, entry, name, end, after];
    await writeFile(archive, Buffer.concat(parts.map((part) => Buffer.from(part))));
    return archive;
}

const scratch = () => path.join(directory, 'scratch');

test('limits hold to the byte and to the entry', async () => {
    const archive = await writeArchive({ content: Buffer.from('7 bytes') });
    const done = await extract(archive, scratch(), { bytes: 7, entries: 1 });
    assert.deepEqual(done, { files: 1, bytes: 7 });
    await assert.rejects(
        extract(archive, scratch(), { bytes: 6, entries: 1 }),
        /more than 6 bytes/,
    );
    await assert.rejects(
        extract(archive, scratch(), { bytes: 7, entries: 0 }),
        /1 entries, more than 0/,
    );
});

test('to lie about a length is no way around the limit', async () => {
    const archive = await writeArchive({ content: Buffer.alloc(1_000_000), bytes: 10 });
    await assert.rejects(
        extract(archive, scratch(), { bytes: 1000, entries: 1 }),
        /length or checksum/,
    );
    assert.ok((await stat(path.join(scratch(), 'name'))).size <= 1000);
    const less = await writeArchive({ content: Buffer.alloc(9), bytes: 10 });
    await assert.rejects(extract(less, scratch()), /length or checksum/);
});

test('an archive may stand between other things', async () => {
    const archive = await writeArchive({
        content: Buffer.from('x'),
        before: '#!',
        after: 'comment',
    });
    assert.deepEqual(await extract(archive, scratch()), { files: 1, bytes: 1 });
});

test('directories that are too short or too long are refused', async () => {
    for (const [count, reason] of [
        [2, /directory is broken/],
        [0xffff, /zip64/],
    ]) {
        const archive = await writeArchive({ content: Buffer.from('x'), count });
        await assert.rejects(extract(archive, scratch()), reason);
    }
});

test('checksums by table are those of the standard', () => {
    // The check value of CRC-32.
    assert.equal(byTable(Buffer.from('123456789'), 0), 0xcbf43926);
    const checksum = new Checksum();
    checksum.add(Buffer.from('1234'));
    checksum.add(Buffer.from('56789'));
    assert.equal(checksum.value(), 0xcbf43926);
});
