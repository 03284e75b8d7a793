/** Making elements. Text is always text: nothing here or elsewhere parses HTML. */

const TONES = 6;
const sheets = new Map();

/** @type {Document['getElementById']} */
export const $ = (id) => document.getElementById(id);

export function element(tag, className, text) {
  const made = document.createElement(tag);
  if (className) made.className = className;
  if (text !== undefined) made.textContent = text;
  return made;
}

export function icon(name) {
  const svg = document.createElementNS('http://www.w3.org/2000/svg', 'svg');
  svg.setAttribute('class', name === 'leave' || name === 'send' ? 'i i--dir' : 'i');
  svg.setAttribute('aria-hidden', 'true');
  svg.append(document.createElementNS(svg.namespaceURI, 'use'));
  setIcon(svg, name);
  return svg;
}

export function setIcon(svg, name) {
  svg.firstElementChild.setAttribute('href', `#i-${name}`);
}

/**
 * A button with a label, an icon, or both; a label given as `title` is for screen readers and the tooltip.
 * @param {string} className
 * @param {{ label?: string, title?: string, name?: string }} shown `name` is the icon's
 * @param {(event: MouseEvent) => void} [then]
 */
export function button(className, { label, title, name }, then) {
  const made = element('button', className);
  made.type = 'button';
  if (name) made.append(icon(name));
  if (label) made.append(element('span', '', label));
  if (title) {
    made.title = title;
    made.setAttribute('aria-label', title);
  }
  if (then) made.addEventListener('click', then);
  return made;
}

/** Sets an attribute or text only where it differs: a live region speaks at every write. */
export function put(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

/** The class that gives a name its colour, the same wherever the name is shown. */
export function toneOf(name) {
  let sum = 0;
  for (const character of name) sum = (sum * 31 + character.codePointAt(0)) >>> 0;
  return `tone-${sum % TONES}`;
}

export function initialsOf(name) {
  const words = name.split(/[\s._-]+/u).filter(Boolean);
  const first = [...(words[0] ?? '?')];
  const letters = words.length > 1 ? first[0] + [...words.at(-1)][0] : first.slice(0, 2).join('');
  return letters.toUpperCase();
}

/** A round picture of initials, for lists. */
export function face(name) {
  const made = element('span', `face ${toneOf(name)}`, initialsOf(name));
  made.setAttribute('aria-hidden', 'true');
  return made;
}

/** Adds a style sheet that the first seconds can do without: resolves when it is in force, or cannot be had. */
export function styled(name) {
  if (!sheets.has(name)) {
    const link = Object.assign(element('link'), { rel: 'stylesheet', href: name });
    sheets.set(name, new Promise((resolve) => (link.onload = link.onerror = resolve)));
    document.head.append(link);
  }
  return sheets.get(name);
}
