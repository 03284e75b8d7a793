/**
 * Texts in the user's language. Each language has a file in lang/, loaded first, one in before/ with the texts of the view before
 * the call and of its devices, and one in late/ with those of the modules that deferred.js loads. A text is a string with {placeholders}, or an object of plural forms (Intl.PluralRules) selected by
 * `count`. Numbers, lists and times are formatted by Intl.
 *
 * Elements of the page name their text by key: data-t (text), data-t-aria-label, data-t-title, data-t-placeholder; fill() sets
 * them. `texts` emits `change` when the language has changed: modules then set their own texts again.
 */

import { recall, remember } from '../base/storage.js';

export const LANGUAGES = { en: 'English', de: 'Deutsch', es: 'Español', fr: 'Français', ar: 'العربية' };
const RIGHT_TO_LEFT = new Set(['ar']);
const ATTRIBUTES = ['aria-label', 'title', 'placeholder'];
const KEY = 'sfu.language';
const base = (locale) => locale.toLowerCase().split('-')[0];

export const texts = new EventTarget();
export let language = 'en';
let locale = 'en';
let folders = ['lang'];
let words = {};
let made = {}; // Intl objects, created on first use: each takes tens of milliseconds on a phone

/** What stands in for parts of Intl that a browser lacks. */
const PLAIN = {
  PluralRules: { select: (count) => (count === 1 ? 'one' : 'other') },
  ListFormat: { format: (names) => names.join(', ') },
  NumberFormat: { format: (value) => String(Math.round(value * 100) / 100) },
  DateTimeFormat: { format: (ms) => new Date(ms).toLocaleString() },
};
const create = (name, options) => (window.Intl?.[name] ? new Intl[name](locale, options) : PLAIN[name]);
const form = (name, options) => (made[name] ??= create(name, options));

/** speak() awaits this, and this module awaits speak(), so that its importers can use the whole DOM. */
const parsed = document.readyState === 'loading' && new Promise((then) => document.addEventListener('readystatechange', then, { once: true }));

/** Switches to a language, English if it is unknown, and sets the page's static texts; `keep` stores the choice. */
export async function speak(wanted, keep = false) {
  const found = wanted in LANGUAGES ? wanted : 'en';
  const files = await Promise.all(folders.map((folder) => import(`../${folder}/${found}.js`)));
  words = Object.assign({}, ...files.map((file) => file.default));
  await parsed;
  language = found;
  locale = (navigator.languages ?? []).find((one) => base(one) === found) ?? found;
  made = {};
  if (keep) remember('localStorage', KEY, found);
  Object.assign(document.documentElement, { lang: found, dir: RIGHT_TO_LEFT.has(found) ? 'rtl' : 'ltr' });
  fill(document);
  texts.dispatchEvent(new Event('change'));
}

/** Loads the texts of more folders. Rejects if they cannot be loaded. */
export function more(...others) {
  folders = [...new Set([...folders, ...others])];
  return speak(language);
}

/**
 * The text of a key. Inserted strings get bidi isolates if they or the language are written right to left; an array becomes a
 * list of them.
 */
export function t(key, values = {}) {
  let text = words[key] ?? key;
  if (typeof text === 'object') text = text[form('PluralRules').select(values.count)] ?? text.other;
  return text.replace(/\{(\w+)\}/g, (whole, name) => (name in values ? shown(values[name]) : whole));
}

/** Whether a text exists; for protocol codes that may be newer than this page. */
export const has = (key) => key in words;

function shown(value) {
  if (typeof value === 'number') return number(value);
  if (Array.isArray(value)) return list(value.map(shown));
  const text = String(value);
  return RIGHT_TO_LEFT.has(language) || /[\u0590-\u08ff]/.test(text) ? `\u2068${text}\u2069` : text;
}

export const number = (value, options) => create('NumberFormat', options).format(value);
export const list = (names) => form('ListFormat').format(names.map(shown));
export const clock = (ms) => form('DateTimeFormat', { hour: 'numeric', minute: '2-digit' }).format(ms);
export const day = (ms) => create('DateTimeFormat', { weekday: 'long', day: 'numeric', month: 'long' }).format(ms);

/** A duration such as 24:08 or 1:02:09. */
export function elapsed(seconds) {
  const [h, m, s] = [Math.floor(seconds / 3600), Math.floor(seconds / 60) % 60, Math.floor(seconds) % 60];
  const two = (value) => number(value, { minimumIntegerDigits: 2 });
  return h ? `${number(h)}:${two(m)}:${two(s)}` : `${number(m)}:${two(s)}`;
}

export function fill(root) {
  for (const one of root.querySelectorAll('[data-t]')) one.textContent = t(one.dataset.t);
  for (const name of ATTRIBUTES) {
    for (const one of root.querySelectorAll(`[data-t-${name}]`)) one.setAttribute(name, t(one.getAttribute(`data-t-${name}`)));
  }
}

const chosen = recall('localStorage', KEY) || (navigator.languages ?? []).map(base).find((one) => one in LANGUAGES);
await speak(chosen || 'en');
