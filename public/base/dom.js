/** Helpers that create elements. Text is always set as text: nothing here or elsewhere parses HTML. */

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
 * A button with a visible label, an icon, or both. `title` sets the tooltip and the accessible name.
 * @param {string} className
 * @param {{ label?: string, title?: string, name?: string }} shown `name` is the icon's name
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

let named = 0;

/** Names a control by its own label and a text beside it, since others near it have the same label. */
export function nameWith(control, text) {
  for (const one of [control, text]) one.id ||= `named-${++named}`;
  control.setAttribute('aria-labelledby', `${control.id} ${text.id}`);
}

/** Sets the text only if it differs: screen readers announce every write to a live region. */
export function put(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

/** The CSS class of a name's colour; the same name always gets the same colour. */
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

/** An avatar of initials, for lists. */
export function face(name) {
  const made = element('span', `face ${toneOf(name)}`, initialsOf(name));
  made.setAttribute('aria-hidden', 'true');
  return made;
}

/** Calls `then` when the size of a node changes; in browsers that cannot tell, when that of the window does. */
export function watchSize(node, then) {
  if (window.ResizeObserver) new ResizeObserver(then).observe(node);
  else addEventListener('resize', then);
}

/** A MediaStream, or null in a browser without WebRTC, which shows the page but no call. */
export const newStream = (tracks = []) => (window.MediaStream ? new MediaStream(tracks) : null);

/** Whether a video track shows what is in front of the user, not the user: it is not mirrored then. */
export const facesAway = (track) => track?.getSettings().facingMode === 'environment';

/** A signal that aborts a request after a time, in browsers that have one. */
export const within = (ms) => AbortSignal.timeout?.(ms);

/** Loads a style sheet that is not needed at first. Rejects if it cannot be loaded. */
export function styled(name) {
  if (!sheets.has(name)) {
    const link = Object.assign(element('link'), { rel: 'stylesheet', href: name });
    const loaded = new Promise((resolve, reject) => Object.assign(link, { onload: resolve, onerror: () => reject(new Error(`${name} did not load`)) }));
    sheets.set(name, loaded);
    document.head.append(link);
  }
  return sheets.get(name);
}

/** Tells boot.js that a part of the page did not load. */
export const missing = () => void dispatchEvent(new Event('unloaded'));
