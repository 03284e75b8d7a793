/** Renders /api/v1/openapi.json as a readable page. All content is set as text, never as HTML. */

const make = (tag, attributes = {}, ...children) => {
  const element = Object.assign(document.createElement(tag), attributes);
  element.append(...children);
  return element;
};
const nameOf = (ref) => ref.split('/').at(-1);
const linkTo = (name) => make('a', { href: `#${name}`, textContent: name });

/** A short description of the values that a schema accepts: a string or a node. */
function typeOf(schema) {
  if (schema.$ref) return linkTo(nameOf(schema.$ref));
  if (schema.anyOf) return 'any JSON';
  if (schema.enum) return schema.enum.join(' or ');
  const types = [schema.type ?? 'anything'].flat();
  if (types.includes('array') && schema.items) return make('span', {}, 'list of ', typeOf(schema.items));
  const words = types.map((type) => (type === 'string' && schema.format ? schema.format : type)).join(' or ');
  const { minimum, maximum } = schema;
  const range = maximum === undefined ? '' : `, ${minimum ?? 0} to ${maximum}`;
  const length = schema.maxLength ? `, up to ${schema.maxLength} characters` : '';
  return words + range + length + (schema.default === undefined ? '' : `, ${JSON.stringify(schema.default)} by default`);
}

const row = (name, type, text) => make('tr', {}, make('th', { scope: 'row' }, make('code', { textContent: name })), make('td', {}, type), make('td', { textContent: text ?? '' }));
const table = (caption, rows) => make('table', {}, make('caption', { textContent: caption }), make('tbody', {}, ...rows));

function showOperation(path, method, operation) {
  const article = make('article', { id: operation.operationId });
  const title = make('h3', {}, make('span', { className: 'method', textContent: method.toUpperCase() }), make('code', { textContent: path }));
  article.append(title, make('p', { textContent: operation.summary }));
  const schemes = operation.security.flatMap((one) => Object.entries(one));
  const keys = { apiKey: 'an API key', adminKey: 'an admin key', moderatorToken: 'a token with moderate for this room' };
  const named = schemes.map(([name, scopes]) => [keys[name], ...scopes.map((scope) => `with the scope ${scope}`)].join(' '));
  article.append(make('p', { textContent: named.length ? `Requires the header Authorization: Bearer, and ${named.join(' or ')}.` : 'No authorization required.' }));
  if (operation.parameters.length) {
    const rows = operation.parameters.map(({ name, in: where, schema, description }) => row(name, typeOf(schema), [`in the ${where}`, description ?? schema.description].filter(Boolean).join(': ')));
    article.append(table('Parameters', rows));
  }
  const body = operation.requestBody?.content['application/json'].schema;
  if (body) article.append(make('p', {}, 'Body: ', typeOf(body)));
  const answers = Object.entries(operation.responses).map(([status, { description, content = {} }]) => {
    const schema = Object.values(content)[0]?.schema;
    return row(status, schema ? typeOf(schema) : '', description);
  });
  article.append(table('Responses', answers));
  return article;
}

function showSchema(name, schema) {
  const article = make('article', { id: name }, make('h3', { textContent: name }));
  if (schema.description) article.append(make('p', { textContent: schema.description }));
  const properties = Object.entries(schema.properties ?? {});
  if (properties.length) {
    const needed = new Set(schema.required ?? []);
    const rows = properties.map(([key, one]) => row(key, typeOf(one), [needed.has(key) ? '' : 'optional', one.description].filter(Boolean).join(': ')));
    article.append(table('Fields', rows));
  }
  return article;
}

async function show() {
  const response = await fetch(new URL('api/v1/openapi.json', import.meta.url));
  const description = await response.json();
  document.title = `${description.info.title} REST API`;
  document.getElementById('about').textContent = description.info.description;
  const main = document.getElementById('operations');
  const contents = make('ul');
  for (const tag of description.tags) {
    main.append(make('h2', { textContent: tag.description }));
    for (const [path, methods] of Object.entries(description.paths)) {
      for (const [method, operation] of Object.entries(methods)) {
        if (!operation.tags.includes(tag.name)) continue;
        main.append(showOperation(path, method, operation));
        contents.append(make('li', {}, make('a', { href: `#${operation.operationId}`, textContent: `${method.toUpperCase()} ${path}` })));
      }
    }
  }
  document.getElementById('contents').append(contents);
  const schemas = document.getElementById('schemas');
  schemas.append(make('h2', { textContent: 'Schemas' }));
  for (const [name, schema] of Object.entries(description.components.schemas)) schemas.append(showSchema(name, schema));
  if (location.hash) document.getElementById(location.hash.slice(1))?.scrollIntoView();
}

show().catch((error) => {
  document.getElementById('about').textContent = `The API description can’t be loaded: ${error.message}`;
});
