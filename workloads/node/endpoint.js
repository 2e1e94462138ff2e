// What the server can be asked to do: paths, their parameters, and how each outcome is answered.
// What does the work is imported by the first request for it, so that a cold start does not pay for
// it.

import { RequestError, valueOf } from './parameter.js';

const N = { name: 'n', min: 1 };
const MIB = { name: 'mib', min: 1, max: 65_536, fallback: 50 };

/**
 * What the endpoints with an answer of their own do: each returns what stands between the brackets
 * of `Done (…)`.
 */
const ENDPOINTS = new Map([
    ['/fib', { takes: { ...N, max: 10_000_000_000 }, does: (n) => onThread('fib', n) }],
    ['/fft', { takes: { ...N, max: 2 ** 24 }, does: (n) => onThread('fft', n) }],
    ['/matrix', { takes: { ...N, max: 4096 }, does: (n) => onThread('matrix', n) }],
    ['/alloc', { takes: MIB, does: (mib) => onThread('alloc', mib) }],
    ['/read', { does: read }],
    ['/unzip', { does: unzip }],
]);

/**
 * Answers one request. Paths are compared as they came: `URL` would repair those that are untidy.
 */
export async function answer(request, response, files) {
    const [path] = request.url.split('?', 1);
    const endpoint = ENDPOINTS.get(path);
    if (endpoint === undefined && path !== '/hello' && path !== '/static') {
        const there = '/hello /fib /fft /matrix /read /alloc /unzip /static';
        text(response, 404, `${JSON.stringify(path)} is unknown: ${there} are there`);
    } else if (request.method !== 'GET') {
        response.setHeader('Allow', 'GET');
        text(response, 405, `${request.method} is not allowed: use GET`);
    } else if (path === '/hello') {
        text(response, 200, 'Hello from sandscope');
    } else {
        try {
            await perform(endpoint, request.url.slice(path.length + 1), response, files);
        } catch (error) {
            text(response, error instanceof RequestError ? 400 : 500, error.message);
        }
    }
}

async function perform(endpoint, query, response, files) {
    if (endpoint === undefined) {
        const { sendStatic } = await import('./static_file.js');
        await sendStatic(response, files.staticFile);
        return;
    }
    const number = endpoint.takes && valueOf(endpoint.takes, query);
    text(response, 200, `Done (${await endpoint.does(number, files)})`);
}

async function onThread(name, number) {
    const { work } = await import('./work.js');
    return work(name, number);
}

async function read(_, { staticFile }) {
    const { readStatic } = await import('./static_file.js');
    return `read ${await readStatic(staticFile)} bytes`;
}

async function unzip(_, { staticFile, scratch }) {
    const { extract } = await import('./unzip.js');
    const { files, bytes } = await extract(staticFile, scratch);
    return `${files} files, ${bytes} bytes`;
}

function text(response, status, line) {
    const body = Buffer.from(`${line}\n`);
    response.writeHead(status, {
        'Content-Type': 'text/plain; charset=utf-8',
        'Content-Length': body.length,
        Date: new Date().toUTCString(),
    });
    response.end(body);
}
