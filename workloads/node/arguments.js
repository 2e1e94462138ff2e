// The command line. Parsed by hand: it takes less to load than what would parse it.

import { isIPv4 } from 'node:net';

export const usage = `\
usage: node main.js CALLBACK-URL|ignore [--port 8080] [--static-file PATH] [--scratch DIRECTORY]

  CALLBACK-URL          gets one GET request as soon as the server listens, such as http://10.0.0.1:3000/ready/7;
                        the word "ignore" stands for no callback
  --port N              TCP port to listen on, 0 for any free one [default: 8080]
  --static-file PATH    file that /static and /read deliver and /unzip extracts [default: static_file]
  --scratch DIRECTORY   directory that /unzip empties and extracts to [default: unzipped]`;

/** A command line that can't be followed. */
export class UsageError extends Error {}

/**
 * Parses what follows the script's name: to how to serve, or to 'help'. Flags may stand on both
 * sides of the callback.
 */
export function parseArguments(list) {
    let callback;
    let port = 8080;
    const files = { staticFile: 'static_file', scratch: 'unzipped' };
    const rest = list[Symbol.iterator]();
    for (const argument of rest) {
        const [, flag, attached] = /^(--[^=]+)(?:=(.*))?$/s.exec(argument) ?? [];
        const value = () => {
            const text = attached ?? rest.next().value;
            if (text === undefined) {
                throw new UsageError(`${flag} needs a value`);
            }
            return text;
        };
        if (flag === '--port') {
            port = portFrom(value());
        } else if (flag === '--static-file') {
            files.staticFile = pathFrom(flag, value());
        } else if (flag === '--scratch') {
            files.scratch = pathFrom(flag, value());
        } else if (argument === '--help' || argument === '-h') {
            return 'help';
        } else if (argument.startsWith('-') || callback !== undefined) {
            throw new UsageError(`unexpected argument ${JSON.stringify(argument)}`);
        } else {
            callback = argument;
        }
    }
    if (callback === undefined) {
        throw new UsageError('the callback URL is missing; use "ignore" for none');
    }
    return { callback: callback === 'ignore' ? undefined : callbackFrom(callback), port, files };
}

function portFrom(text) {
    if (!/^\d{1,5}$/.test(text) || Number(text) > 65_535) {
        throw new UsageError(
            `--port is ${JSON.stringify(text)}: it must be a whole number from 0 to 65535`,
        );
    }
    return Number(text);
}

function pathFrom(flag, text) {
    if (text === '') {
        throw new UsageError(`${flag} needs a path that is not empty`);
    }
    return text;
}

/**
 * Takes http URLs whose host is an IPv4 address, since a sandbox has no resolver. Not by `URL`,
 * which repairs what should be refused.
 */
function callbackFrom(text) {
    const wrong = (reason) =>
        new UsageError(`the callback URL ${JSON.stringify(text)} can't be used: ${reason}`);
    const [, authority, path] = /^http:\/\/([^/?#]*)([/?][!-~]*)?$/.exec(text) ?? [];
    if (authority === undefined) {
        throw wrong('it must start with http:// and hold nothing but printable ASCII characters');
    }
    const [, host, port = '80'] = /^([\d.]+)(?::(\d{1,5}))?$/.exec(authority) ?? [];
    if (host === undefined || !isIPv4(host) || Number(port) > 65_535) {
        throw wrong(
            'its host must be an IPv4 address, with or without a port, such as 10.0.0.1:3000',
        );
    }
    const [target] = (path ?? '/').split('#');
    return {
        text,
        host,
        port: Number(port),
        path: target.startsWith('/') ? target : `/${target}`,
    };
}
