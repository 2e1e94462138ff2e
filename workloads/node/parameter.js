// The one number that an endpoint may take from the query of the URL.

/** A request that is wrong. */
export class RequestError extends Error {}

/**
 * Takes the number from the query. `name`, `min` and `max` say what is allowed; `fallback` is the
 * value when it is absent; without one, it must not be. A parameter of another name is an error: a
 * misspelt one would otherwise pass for absent.
 */
export function valueOf({ name, min, max, fallback }, query) {
    const rule = `${name}, a whole number from ${min} to ${max},`;
    let found;
    for (const pair of query.split('&')) {
        if (pair === '') {
            continue;
        }
        const [given, ...rest] = pair.split('=');
        if (given !== name) {
            throw new RequestError(
                `the parameter ${JSON.stringify(given)} is unknown: ${rule} is expected`,
            );
        }
        if (found !== undefined) {
            throw new RequestError(
                `the parameter ${JSON.stringify(name)} is given twice: ${rule} is expected once`,
            );
        }
        found = rest.join('=');
    }
    if (found === undefined) {
        if (fallback === undefined) {
            throw new RequestError(`a parameter is missing: ${rule} is expected`);
        }
        return fallback;
    }
    const number = /^[0-9]+$/.test(found) ? Number(found) : NaN;
    if (!(number >= min && number <= max)) {
        throw new RequestError(
            `the parameter "${name}" is ${JSON.stringify(found)}: ${rule} is expected`,
        );
    }
    return number;
}
