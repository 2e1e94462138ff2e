// Tells the host that the server is ready: one GET request, sent once, after the socket listens.

import { request as newRequest } from 'node:http';

/** Longest time from the first packet of the connection to the head of the response. */
const PATIENCE_MS = 5000;

/**
 * Sends one request, and no second one whatever the answer is. `sinceMain` are the nanoseconds of
 * monotonic time from the start of `main` to the moment just after `listen`.
 */
export async function sendCallback({ host, port, path }, sinceMain) {
    let patience;
    try {
        await new Promise((resolve, reject) => {
            const headers = { 'sandscope-since-main-ns': String(sinceMain) };
            const request = newRequest({ host, port, path, headers, agent: false }, (response) => {
                const { statusCode, statusMessage } = response;
                response.destroy();
                if (statusCode >= 200 && statusCode <= 299) {
                    resolve();
                } else {
                    reject(new Error(`the answer is ${statusCode} ${statusMessage}`));
                }
            });
            request.on('error', reject);
            request.end();
            patience = setTimeout(
                () => request.destroy(new Error(`no answer within ${PATIENCE_MS / 1000} s`)),
                PATIENCE_MS,
            );
        });
    } catch (error) {
        throw await explained(error);
    } finally {
        clearTimeout(patience);
    }
}

/** Adds what the error's number means, which the errors of connections do not say. */
async function explained(error) {
    if (error.errno === undefined) {
        return error;
    }
    const { getSystemErrorMap } = await import('node:util');
    const [, meaning] = getSystemErrorMap().get(error.errno) ?? [];
    return new Error(meaning === undefined ? error.message : `${error.message}: ${meaning}`);
}
