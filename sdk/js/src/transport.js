/** Requests, and when they are sent again. */

import { crypto } from './crypto.js';
import { ApiError, Unreachable } from './errors.js';

const AGAIN = [429, 502, 503, 504];
const WAIT_S = 0.5;
/** A server that asks for a longer wait than this is not asked again. */
const MOST_WAIT_S = 30;

export class Transport {
  #key;
  #timeoutMs;
  #attempts;

  constructor(baseUrl, key, { timeoutMs = 20_000, attempts = 4 } = {}) {
    if (!/^https?:\/\//.test(baseUrl)) throw new TypeError('The address of the server must begin with https:// or http://.');
    if (!(attempts >= 1)) throw new RangeError('There must be at least one attempt.');
    this.baseUrl = baseUrl.replace(/\/+$/, '');
    this.#key = key;
    this.#timeoutMs = timeoutMs;
    this.#attempts = attempts;
  }

  /** `path` is below /api/v1. Resolves to the body and the headers, or throws an ApiError. */
  async send(method, path, body, { query = {}, ifMatch = '', idempotencyKey = '' } = {}) {
    const headers = { Authorization: `Bearer ${this.#key}`, Accept: 'application/json' };
    if (method === 'POST') headers['Idempotency-Key'] = idempotencyKey || crypto.randomUUID();
    if (ifMatch) headers['If-Match'] = ifMatch;
    if (body !== undefined) headers['Content-Type'] = 'application/json';
    const asked = new URLSearchParams(Object.entries(query).filter(([, value]) => value !== undefined && value !== null));
    const url = `${this.baseUrl}/api/v1${path}${`${asked}` && `?${asked}`}`;
    const request = { method, headers, body: body === undefined ? undefined : JSON.stringify(body) };
    const attempts = ifMatch ? 1 : this.#attempts; // after a change that succeeded, the version no longer fits
    for (let attempt = 0, lost = false; ; attempt += 1) {
      try {
        return await this.#once(url, request);
      } catch (error) {
        if (!(error instanceof ApiError)) throw error;
        if (lost && method === 'DELETE' && error.status === 404) return { body: null, headers: new Headers() };
        const waitS = wait(error, attempt);
        if (waitS === null || attempt >= attempts - 1) throw error;
        lost ||= error.status !== 429;
        await new Promise((resolve) => setTimeout(resolve, waitS * 1000));
      }
    }
  }

  /** All items of a list, page by page. */
  async *pages(path, query = {}) {
    for (let cursor; cursor !== null; ) {
      const { body } = await this.send('GET', path, undefined, { query: { ...query, ...(cursor && { cursor }) } });
      yield* body.items;
      cursor = body.next ?? null;
    }
  }

  async #once(url, request) {
    let response, text, body;
    try {
      // A redirect would be another server's word.
      response = await fetch(url, { ...request, redirect: 'manual', signal: AbortSignal.timeout(this.#timeoutMs) });
      text = await response.text();
      body = response.ok && text ? JSON.parse(text) : null;
    } catch (error) {
      throw new Unreachable(`There was no answer: ${error.cause?.message ?? error.message}`, error);
    }
    if (!response.ok) throw refusal(response, text);
    return { body, headers: response.headers };
  }
}

/** A name as a part of a path. Clients and proxies resolve dots, unless a blank precedes them. */
export function segment(name) {
  const quoted = encodeURIComponent(name);
  return quoted === '.' || quoted === '..' ? `%20${quoted}` : quoted;
}

/** Seconds before the next attempt; null: there should be none. */
function wait(error, attempt) {
  const mayHelp = error instanceof Unreachable || AGAIN.includes(error.status) || error.code === 'idempotency_running';
  if (!mayHelp) return null;
  if (error.retryAfter !== null) return error.retryAfter <= MOST_WAIT_S ? error.retryAfter : null;
  return WAIT_S * 2 ** attempt * (0.75 + Math.random() / 2);
}

/** What an answer says, also if it is a proxy's and no problem (RFC 9457). */
function refusal(response, text) {
  let said;
  try {
    said = JSON.parse(text);
  } catch {
    said = null;
  }
  const { code = 'http_error', detail = response.statusText, field = '' } = said ?? {};
  const after = response.headers.get('Retry-After') ?? '';
  const requestId = response.headers.get('X-Request-Id') ?? '';
  return new ApiError(response.status, code, detail, { field, requestId, retryAfter: /^\d+$/.test(after) ? Number(after) : null });
}
