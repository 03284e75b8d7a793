/**
 * Signs of what others do, beyond the toasts: sounds, marks in the document's title, and system notifications while the page is
 * hidden. All are bounded, so that a large room stays calm. Loaded with deferred.js.
 */

import { play } from '../devices/meter.js';
import { choices, choose } from '../base/storage.js';
import { number } from '../i18n/texts.js';
import { page } from './page.js';

/** The notes of each sound; see play(). */
const SOUNDS = /** @type {Record<string, import('../devices/meter.js').Note[]>} */ ({
  joined: [[523.25, 0], [659.25, 0.12]],
  left: [[659.25, 0], [523.25, 0.12]],
  message: [[880, 0]],
  hand: [[587.33, 0], [880, 0.1]],
  knock: [[392, 0], [392, 0.18], [587.33, 0.5], [392, 0.9], [392, 1.08], [587.33, 1.4]],
});
const SOFT = 0.06;
const LOUD = 0.25; // of a knock
const SAME_MS = 5_000; // minimum time between two sounds of one kind
const ANY_MS = 1_500; // and between any two; a knock does not wait
const SETTLE_MS = 3_000; // after joining, while the room fills
const GATHER_MS = { pause: 500, most: 2_000 }; // until nothing more comes, but no longer than `most`
const PAUSE_MS = 3_000; // minimum time between two signs of one kind

const soundedAt = {};
let calmUntil = 0;

/** Plays a sound, unless the user turned sounds off, the last one has only just been played, or the user has only just joined. */
export function chime(kind) {
  const now = performance.now();
  const knock = kind === 'knock';
  const last = Math.max(-Infinity, ...Object.values(soundedAt));
  if (!choices.sounds || now - (soundedAt[kind] ?? -Infinity) < SAME_MS || (!knock && (now < calmUntil || now - last < ANY_MS))) return;
  soundedAt[kind] = now;
  play(SOUNDS[kind], choices.speaker, knock ? LOUD : SOFT);
}

// --- the document's title ---

const marks = { unread: 0, waiting: 0 };
let plain = document.title;

/** Sets the number of unread messages or of people waiting in the lobby, which the title shows during a call. */
export function mark(/** @type {{ unread?: number, waiting?: number }} */ changed) {
  Object.assign(marks, changed);
  const { unread, waiting } = page.inCall ? marks : { unread: 0, waiting: 0 };
  document.title = [waiting && '🔔', unread && `(${number(unread)})`, plain].filter(Boolean).join(' ');
}

// --- system notifications ---

const shown = new Map(); // kind → Notification

/** Whether this browser can show notifications of this page. */
export const canNotify = () => 'Notification' in window && window.isSecureContext && window.parent === window;

/** Asks for the permission to notify, upon the user's action. Resolves to whether notifications will be shown. */
export async function askToNotify() {
  const answer = await Notification.requestPermission();
  choose({ notify: answer === 'granted' && notification('', {}) });
  return choices.notify;
}

/** Tries to make a notification: phones have the constructor, but refuse to use it. */
function notification(text, options, /** @type {(made: Notification) => void} */ then = (made) => made.close()) {
  try {
    then(new Notification(page.room.room, { body: text, icon: 'icon.svg', silent: true, ...options }));
    return true;
  } catch {
    return false;
  }
}

/** While the page is hidden, shows one system notification of a kind, replacing the last. A click shows the page and calls `then`. */
export function notify(kind, text, then = () => {}) {
  if (!document.hidden || !choices.notify || !canNotify() || Notification.permission !== 'granted') return;
  notification(text, { tag: `sfu.${kind}`, requireInteraction: kind === 'knock' }, (made) => {
    shown.set(kind, made);
    made.onclick = () => {
      window.focus();
      withdraw(kind);
      then();
    };
  });
}

export function withdraw(kind) {
  shown.get(kind)?.close();
  shown.delete(kind);
}

const withdrawAll = () => [...shown.keys()].forEach(withdraw);

// --- many at once ---

/** Gathers what happens in quick succession, so that it is told in one sign: `tell` gets the array of it. */
export class Gathered {
  #tell;
  #pause; // returns the minimum time between two signs, in ms
  #kept = new Map(); // key → value
  #timer = 0;
  #firstAt = 0;
  #toldAt = -Infinity;

  constructor(tell, pause = () => PAUSE_MS) {
    this.#tell = tell;
    this.#pause = pause;
  }

  add(key, value) {
    const now = performance.now();
    if (!this.#kept.size) this.#firstAt = now;
    this.#kept.set(key, value);
    const due = Math.min(now + GATHER_MS.pause, this.#firstAt + GATHER_MS.most);
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => this.#flush(), Math.max(due, this.#toldAt + this.#pause()) - now);
  }

  /** Takes back what has not been told yet; false if there is nothing to take back. */
  drop(key) {
    return this.#kept.delete(key);
  }

  clear() {
    clearTimeout(this.#timer);
    this.#kept.clear();
  }

  #flush() {
    const kept = [...this.#kept.values()];
    this.clear();
    if (!kept.length || !page.inCall) return;
    this.#toldAt = performance.now();
    this.#tell(kept);
  }
}

page.follow('welcome', () => (calmUntil = performance.now() + SETTLE_MS));
page.on('view', () => {
  plain = document.title;
  mark({});
  if (!page.inCall) withdrawAll();
});
document.addEventListener('visibilitychange', () => document.hidden || withdrawAll());
