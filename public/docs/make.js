/** Makes elements. Text is always set as text, never parsed as HTML. */

/**
 * @param {string} tag
 * @param {Record<string, any>} [attributes] properties of the element
 * @param {...(Node | string)} children
 * @returns {any}
 */
export const make = (tag, attributes = {}, ...children) => {
  const element = Object.assign(document.createElement(tag), attributes);
  element.append(...children);
  return element;
};

export const code = (text) => make('code', { textContent: text });
export const linkTo = (id, text = id) => make('a', { href: `#${id}`, textContent: text });

/** The text, with what stands between backticks as code. */
export const prose = (text) => make('span', {}, ...text.split(/`([^`]+)`/u).map((part, index) => (index % 2 ? code(part) : part)));

/** A row of a table: its name, and the other cells. */
export const row = (name, ...cells) => make('tr', {}, make('th', { scope: 'row' }, name), ...cells.map((cell) => make('td', {}, cell)));
export const table = (caption, rows) => make('table', {}, make('caption', { textContent: caption }), make('tbody', {}, ...rows));
export const folded = (title, ...children) => make('details', {}, make('summary', { textContent: title }), ...children);
