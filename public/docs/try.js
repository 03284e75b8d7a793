/** "Try it": a form that sends a request to this server and shows the response. */

import { addressOf, headersOf } from './request.js';
import { code, linkTo, make, row, table } from './make.js';

const SHOWN = ['X-Request-Id', 'RateLimit', 'RateLimit-Policy', 'ETag', 'Location', 'Link', 'Retry-After', 'Content-Type'];
const MOST_CHARACTERS = 100_000;
const WAIT_MS = 30_000;

/** The key is read from its field when a request is sent, and is kept nowhere else. */
const keyField = () => /** @type {HTMLInputElement} */ (document.getElementById('key'));

function control({ name, in: where, required, schema }, value) {
  const shared = { name, required: Boolean(required), autocomplete: 'off', spellcheck: false };
  const made = schema.enum
    ? make('select', shared, make('option', { value: '', textContent: '' }), ...schema.enum.map((one) => make('option', { value: one, textContent: one })))
    : make('input', { ...shared, type: 'text', value });
  made.dataset.in = where;
  return made;
}

/**
 * @param {import('./request.js').Request} request what the form begins with
 * @param {Record<string, any>} operation
 * @param {Record<string, any>} codes those that the page explains
 * @param {(request: import('./request.js').Request) => void} changed is called with what is filled in
 */
export function tryForm(request, operation, codes, changed) {
  const fields = operation.parameters.map((one) => control(one, request.values.find(({ name, in: where }) => name === one.name && where === one.in)?.value ?? ''));
  const labels = fields.map((field) => make('label', {}, make('span', {}, code(field.name), ` in the ${field.dataset.in}`), field));
  const body = request.body === undefined ? undefined : make('textarea', { name: 'body', value: request.body, rows: request.body.split('\n').length + 1, spellcheck: false });
  if (body) labels.push(make('label', { className: 'wide' }, make('span', { textContent: 'Body' }), body));
  const send = make('button', { type: 'submit', textContent: 'Send' });
  const answer = make('div', { className: 'answer' });
  answer.setAttribute('aria-live', 'polite');
  const form = make('form', { className: 'try' }, ...labels);
  if (operation['x-changes']) form.append(make('p', { className: 'warning', textContent: warning(request.method) }));
  form.append(make('p', {}, send), answer);
  const filled = () => ({ ...request, values: fields.map((field) => ({ name: field.name, in: field.dataset.in, value: field.value })), body: body?.value });
  form.addEventListener('input', () => changed(filled()));
  form.addEventListener('submit', async (event) => {
    event.preventDefault();
    send.disabled = true;
    answer.replaceChildren('Sending …');
    try {
      answer.replaceChildren(...(await sent(filled(), operation, codes)));
    } catch (error) {
      answer.replaceChildren(make('p', { className: 'warning', textContent: `No response: ${error.message}` }));
    }
    send.disabled = false;
  });
  return form;
}

const warning = (method) => (method === 'DELETE' ? 'Careful: this deletes on the real server.' : 'Careful: this changes something on the real server.');

/** Sends it and returns what to show. @param {import('./request.js').Request} request */
async function sent(request, operation, codes) {
  const headers = new Headers(headersOf(request).map(([name, value]) => /** @type {[string, string]} */ ([name, value])));
  const key = keyField().value.trim();
  if (request.key && key) headers.set('Authorization', `Bearer ${key}`);
  const response = await fetch(addressOf(request), {
    method: request.method, headers, body: request.body, cache: 'no-store', credentials: 'omit', signal: AbortSignal.timeout(WAIT_MS),
  });
  const text = await response.text();
  const shown = [make('p', { className: response.ok ? 'status' : 'status failed', textContent: [response.status, operation.responses[response.status]?.description].join(' ') })];
  const rows = SHOWN.filter((name) => response.headers.has(name)).map((name) => row(code(name), response.headers.get(name)));
  if (rows.length) shown.push(table('Headers', rows));
  const { pretty, problem } = readable(response, text);
  if (codes[problem]) shown.push(make('p', {}, 'What it means: ', linkTo(`code-${problem}`, problem)));
  if (pretty) shown.push(make('pre', { tabIndex: 0, textContent: pretty.slice(0, MOST_CHARACTERS) }));
  if (pretty.length > MOST_CHARACTERS) shown.push(make('p', { textContent: `The first ${MOST_CHARACTERS} of ${pretty.length} characters.` }));
  return shown;
}

/** The text as it is best read, and the code of a problem. */
function readable(response, text) {
  try {
    if (!response.headers.get('Content-Type')?.includes('json')) return { pretty: text, problem: '' };
    const json = JSON.parse(text);
    return { pretty: JSON.stringify(json, null, 2), problem: response.ok ? '' : json.code };
  } catch {
    return { pretty: text, problem: '' };
  }
}
