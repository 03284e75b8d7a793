/** Renders /api/v1/openapi.json as a readable page. All content is set as text, never as HTML. */

import { code, folded, linkTo, make, prose, row, table } from './docs/make.js';
import { curlOf } from './docs/request.js';
import { Schemas, typeOf } from './docs/schema.js';
import { searchable } from './docs/search.js';
import { tryForm } from './docs/try.js';
import { copyText } from './ui/here.js';

const KEYS = { apiKey: 'an API key', adminKey: 'an admin key', moderatorToken: 'a token with `moderate` for this room' };

function authorization(operation) {
  const schemes = operation.security.flatMap((one) => Object.entries(one));
  const named = schemes.map(([name, scopes]) => [KEYS[name], ...scopes.map((scope) => `with the scope \`${scope}\``)].join(' '));
  return named.length ? `Requires the header \`Authorization: Bearer\`, and ${named.join(' or ')}.` : 'No authorization required.';
}

/** The request to begin with: the document's example, or one made from the schema. */
function firstRequest(path, method, operation, schemas) {
  const [type, content] = Object.entries(operation.requestBody?.content ?? {})[0] ?? [''];
  const body = content && JSON.stringify(content.example ?? schemas.example(content.schema), null, 2);
  const needed = operation.parameters.filter(({ required }) => required);
  const values = needed.map(({ name, in: where, schema }) => ({ name, in: where, value: String(schemas.example(schema, name)) }));
  return { method: method.toUpperCase(), path, values, type, body, key: operation.security.length > 0 };
}

function parameters(operation, schemas) {
  if (!operation.parameters.length) return [];
  const text = ({ in: where, description, schema }) => [`in the ${where}`, description ?? schemas.resolve(schema).description].filter(Boolean).join(': ');
  return [table('Parameters', operation.parameters.map((one) => row(code(one.name), typeOf(one.schema), prose(text(one)))))];
}

function bodies(operation, schemas) {
  const shown = [];
  const body = Object.values(operation.requestBody?.content ?? {})[0]?.schema;
  if (body) shown.push(make('p', {}, 'Body: ', typeOf(body)), table('Fields of the body', schemas.rows(body)));
  const refused = [];
  for (const [status, { description, content = {} }] of Object.entries(operation.responses)) {
    const schema = Object.values(content)[0]?.schema;
    if (Number(status) >= 300) {
      refused.push(row(code(status), schema ? typeOf(schema) : '', prose(description)));
      continue;
    }
    shown.push(make('p', {}, `Response: ${status} ${description}`, ...(schema ? [', ', typeOf(schema)] : [])));
    const rows = schema ? schemas.rows(schema) : [];
    if (rows.length) shown.push(folded(`Fields of the response (${rows.length})`, table('Fields of the response', rows)));
  }
  return [...shown, folded('Other responses', table('Other responses', refused))];
}

function example(first, operation, codes) {
  const curl = make('pre', { className: 'curl', textContent: curlOf(first), tabIndex: 0 });
  const copy = make('button', { type: 'button', className: 'copy', textContent: 'Copy' });
  copy.addEventListener('click', async () => {
    const copied = await copyText(curl.textContent);
    if (!copied) getSelection().selectAllChildren(curl);
    copy.textContent = copied ? 'Copied' : 'Selected: copy it with the keyboard';
    setTimeout(() => (copy.textContent = 'Copy'), 2000);
  });
  const attempt = folded('Try it');
  const open = () => attempt.append(tryForm(first, operation, codes, (request) => (curl.textContent = curlOf(request))));
  attempt.addEventListener('toggle', open, { once: true });
  return [make('div', { className: 'example' }, make('p', { textContent: 'Example' }), copy), curl, attempt];
}

function showOperation(path, method, operation, schemas, codes) {
  const title = make('h3', {}, make('span', { className: 'method', textContent: method.toUpperCase() }), code(path));
  const first = firstRequest(path, method, operation, schemas);
  return make(
    'article', { id: operation.operationId },
    title, make('p', {}, prose(operation.summary)), make('p', {}, prose(authorization(operation))),
    ...parameters(operation, schemas), ...bodies(operation, schemas), ...example(first, operation, codes),
  );
}

function showSchema(name, schema, schemas) {
  const article = make('article', { id: name }, make('h3', { textContent: name }));
  if (schema.description) article.append(make('p', {}, prose(schema.description)));
  const rows = schemas.rows(schema, '', Infinity);
  if (rows.length) article.append(table('Fields', rows));
  return article;
}

function showCodes(codes) {
  const rows = Object.entries(codes).map(([name, { status, description }]) => Object.assign(row(code(name), String(status), prose(description)), { id: `code-${name}` }));
  const note = make('p', {}, 'A refusal is a ', linkTo('Problem'), ' with one of these in ', code('code'), '. They never change; the text beside them may.');
  document.getElementById('codes').append(make('h2', { textContent: 'Error codes' }), note, table('Codes, with their status', rows));
}

/** Shows all routes; returns what to search them by. */
function showOperations(description, schemas) {
  const routes = [];
  const contents = make('ul');
  for (const tag of description.tags) {
    const heading = make('h2', { textContent: tag.description });
    document.getElementById('operations').append(heading);
    for (const [path, methods] of Object.entries(description.paths)) {
      for (const [method, operation] of Object.entries(methods)) {
        if (!operation.tags.includes(tag.name)) continue;
        const article = showOperation(path, method, operation, schemas, description['x-codes']);
        const entry = make('li', {}, linkTo(operation.operationId, `${method.toUpperCase()} ${path}`));
        document.getElementById('operations').append(article);
        contents.append(entry);
        const scopes = operation.security.flatMap((one) => Object.values(one).flat());
        const words = [method, path, operation.operationId, operation.summary, tag.name, tag.description, ...scopes].join(' ').toLowerCase();
        routes.push({ words, article, entry, heading });
      }
    }
  }
  document.getElementById('contents').append(contents);
  return routes;
}

async function show() {
  const response = await fetch(new URL('api/v1/openapi.json', import.meta.url));
  const description = await response.json();
  const schemas = new Schemas(description.components.schemas);
  document.title = `${description.info.title} REST API`;
  document.getElementById('about').replaceChildren(prose(description.info.description));
  const routes = showOperations(description, schemas);
  showCodes(description['x-codes']);
  const section = document.getElementById('schemas');
  section.append(make('h2', { textContent: 'Schemas' }));
  for (const [name, schema] of Object.entries(description.components.schemas)) section.append(showSchema(name, schema, schemas));
  searchable(routes);
  document.getElementById('tools').hidden = false;
  if (location.hash) document.getElementById(location.hash.slice(1))?.scrollIntoView();
}

show().catch((error) => {
  document.getElementById('about').textContent = `The API description can’t be loaded: ${error.message}`;
});
