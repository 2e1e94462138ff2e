// The socket: listening, accepting, and the answers to what is no request.

import { createServer } from 'node:http';
import { answer } from './endpoint.js';

/** Connections that may wait to be accepted; the kernel lowers it to its `net.core.somaxconn`. */
const BACKLOG = 4096;

/** Largest head of a request: request line and headers. */
const MAX_HEAD_BYTES = 16 * 1024;

/** Longest time that a timer can be set to, which is 25 days. */
const NEVER_MS = 2 ** 31 - 1;

/** What the parser's errors mean for the client; all others are 400. */
const REFUSALS = {
    HPE_HEADER_OVERFLOW: [
        '431 Request Header Fields Too Large',
        `the head of the request is larger than ${MAX_HEAD_BYTES} bytes`,
    ],
    HPE_INVALID_METHOD: ['405 Method Not Allowed', 'the method is unknown: use GET'],
};

/**
 * Serves until a signal ends the process; returns the address as soon as it listens.
 *
 * It has no time limits: their timers would wake a server that is measured for how often it wakes
 * up. The one that looks for connections beyond their time can't be turned off, only put off.
 */
export function listen(port, files) {
    const limits = {
        maxHeaderSize: MAX_HEAD_BYTES,
        connectionsCheckingInterval: NEVER_MS,
        headersTimeout: 0,
        requestTimeout: 0,
        keepAliveTimeout: 0,
    };
    const server = createServer(limits, (request, response) => {
        // Node's own date would set a timer to be renewed a second later.
        response.sendDate = false;
        answer(request, response, files);
    });
    server.on('clientError', (error, socket) => {
        const [status, line] = REFUSALS[error.code] ?? [
            '400 Bad Request',
            'this is no HTTP request',
        ];
        refuse(socket, status, line);
    });
    server.on('connect', (_, socket) => {
        refuse(socket, '405 Method Not Allowed', 'CONNECT is not allowed: use GET');
    });
    return new Promise((resolve, reject) => {
        server.once('error', reject);
        server.listen({ host: '0.0.0.0', port, backlog: BACKLOG }, () => {
            const { address, port } = server.address();
            resolve(`${address}:${port}`);
        });
    });
}

/**
 * Answers what the parser did not make a request of, and hangs up. What else the client sends is
 * thrown away.
 */
function refuse(socket, status, line) {
    if (!socket.writable) {
        return;
    }
    const head = [
        `HTTP/1.1 ${status}`,
        'Content-Type: text/plain; charset=utf-8',
        `Content-Length: ${line.length + 1}`,
        'Allow: GET',
        'Connection: close',
    ];
    socket.end(`${head.join('\r\n')}\r\n\r\n${line}\n`);
    socket.resume();
}
