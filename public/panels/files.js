/** File uploads in the chat: one at a time, each with a card that shows its progress or error. */

import { button, element, icon, nameWith } from '../base/dom.js';
import { page } from '../app/page.js';
import { SERVER } from '../base/server.js';
import { number, t } from '../i18n/texts.js';
import { say, toast } from '../ui/toasts.js';

const UNITS = ['byte', 'kilobyte', 'megabyte', 'gigabyte'];
const TAIL = 8; // characters at the end of a long file name that always show

/** The list of uploads that are running, waiting or have failed. */
export const uploads = element('ul', 'uploads');
let last = Promise.resolve();

export const filesAllowed = () => Boolean(page.room?.limits?.file_bytes && page.room.settings.files && page.room.permissions.chat);

/** A file size such as 214 kB or 1.4 MB. */
export function size(bytes) {
  const power = Math.min(UNITS.length - 1, Math.floor(Math.log10(Math.max(bytes, 1)) / 3));
  const value = bytes / 1000 ** power;
  return number(value, { style: 'unit', unit: UNITS[power], unitDisplay: 'short', maximumFractionDigits: power > 1 && value < 10 ? 1 : 0 });
}

/** A file name that is truncated before its last characters, so that the extension stays visible. */
export function fileName(name) {
  const box = element('bdi', 'filename');
  box.dir = 'ltr';
  box.title = name;
  const split = [...name].length > 2 * TAIL ? [...name].length - TAIL : 0;
  if (split) box.append(element('span', 'cut', [...name].slice(0, split).join('')));
  box.append(element('span', '', [...name].slice(split).join('')));
  return box;
}

/** Queues files for upload; shows a toast for each that cannot be shared. */
export function share(files) {
  if (!filesAllowed()) {
    if (files.length) toast('files', t('files.off'), { icon: 'warning' });
    return;
  }
  for (const file of files) {
    const limit = page.room.limits.file_bytes;
    if (file.size > limit) toast('files', t('files.too_large', { name: file.name, size: size(file.size), limit: size(limit) }), { icon: 'warning' });
    else if (!file.size) toast('files', t('files.empty', { name: file.name }), { icon: 'warning' });
    else queue(file);
  }
}

function queue(file) {
  const card = makeCard(file);
  const send = () => {
    card.waiting();
    last = last.then(() => card.box.isConnected && post(file, card)).catch((code) => card.failed(code, send));
  };
  uploads.append(card.box);
  send();
}

/** Uploads a file. Resolves when it is shared or cancelled; rejects with an error code. */
function post(file, card) {
  const { room } = page;
  const request = new XMLHttpRequest(); // fetch() reports no upload progress
  card.cancel = () => request.abort();
  /** @type {Promise<void>} */
  const sent = new Promise((resolve, reject) => {
    request.upload.onprogress = ({ loaded, total }) => card.progress(loaded / total);
    request.onload = () => (request.status === 201 ? resolve() : reject(codeOf(request)));
    request.onerror = () => reject('failed');
    request.onabort = () => resolve();
    request.open('POST', new URL('files', SERVER));
    request.setRequestHeader('Authorization', `Bearer ${room.session}`);
    request.setRequestHeader('Content-Type', file.type || 'application/octet-stream');
    request.setRequestHeader('X-File-Name', encodeURIComponent(file.name));
    request.send(file);
  });
  return sent.then(() => card.box.remove());
}

function codeOf({ responseText }) {
  try {
    return JSON.parse(responseText).code;
  } catch {
    return 'failed';
  }
}

function makeCard(file) {
  const box = element('li', 'filecard');
  const words = element('div');
  const bar = element('progress');
  const text = element('span', 'muted');
  bar.setAttribute('aria-label', t('files.sending', { name: file.name }));
  const shown = fileName(file.name);
  words.append(shown, bar, text);
  const card = { box, cancel: () => {} };
  const close = button('icon-btn', { title: t('files.cancel', { name: file.name }), name: 'close' }, () => {
    card.cancel();
    box.remove();
  });
  let again = null;
  card.waiting = () => {
    again?.remove();
    bar.hidden = false;
    bar.removeAttribute('value');
    text.textContent = size(file.size);
  };
  card.progress = (share) => {
    bar.value = share;
    text.textContent = t('files.progress', { percent: number(share, { style: 'percent' }), size: size(file.size) });
  };
  card.failed = (code, send) => {
    bar.hidden = true;
    text.textContent = t(FAILURES[code] ?? 'files.failed', { limit: size(page.room.limits.file_bytes) });
    say(`${file.name}: ${text.textContent}`);
    again = button('btn btn--small', { label: t('again') }, send);
    nameWith(again, shown);
    close.before(again);
  };
  box.append(icon('file'), words, close);
  return card;
}

const FAILURES = {
  file_too_large: 'files.limit',
  body_too_large: 'files.limit',
  not_allowed: 'files.off',
  files_off: 'files.off',
  too_many_requests: 'files.rate',
  files_full: 'files.full',
  database_unavailable: 'files.unavailable',
  server_full: 'files.unavailable',
};
