/** A request as a person has filled it in: its address, its headers, and the same as a command of curl. */

const ROOT = new URL('../', import.meta.url);
const quoted = (text) => `'${text.replaceAll("'", String.raw`'\''`)}'`;
// Browsers resolve `.` and `..` in an address even if they are escaped; the server ignores blanks around a name.
const segment = (text) => encodeURIComponent(/^\.{1,2}$/u.test(text) ? ` ${text}` : text);

/**
 * @typedef {{ name: string, in: string, value: string }} Value
 * @typedef {{ method: string, path: string, values: Value[], type: string, body: string | undefined, key: boolean }} Request
 */

/** @param {Request} request */
export function addressOf({ path, values }) {
  const filled = path.replace(/\{(\w+)\}/gu, (_, name) => segment(values.find((one) => one.in === 'path' && one.name === name)?.value ?? ''));
  const url = new URL(`.${filled}`, ROOT);
  for (const { name, value } of values.filter((one) => one.in === 'query' && one.value)) url.searchParams.append(name, value);
  return url;
}

/** @param {Request} request */
export function headersOf({ values, type, body }) {
  const given = values.filter((one) => one.in === 'header' && one.value).map(({ name, value }) => [name, value]);
  return [...given, ...(body === undefined ? [] : [['Content-Type', type]])];
}

/** The key stands in it as a variable of the shell: commands are shown, copied and kept in histories. @param {Request} request */
export function curlOf(request) {
  const lines = [`curl${request.method === 'GET' ? '' : ` -X ${request.method}`} ${quoted(addressOf(request).href)}`];
  if (request.key) lines.push('-H "Authorization: Bearer $SFU_KEY"');
  for (const [name, value] of headersOf(request)) lines.push(`-H ${quoted(`${name}: ${value}`)}`);
  if (request.body !== undefined) lines.push(`--data-raw ${quoted(request.body)}`);
  return lines.join(' \\\n  ');
}
