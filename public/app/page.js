/**
 * State and events shared by all modules of the page. The page re-emits every event of the current Room with the same detail,
 * so modules subscribe once, whichever Room is current. In addition it emits:
 *
 *   call      detail { again }: page.room is a new Room; discard the state of the last one, unless `again` (same room name)
 *   people    participants, their tracks or their marks have changed (at most once a frame)
 *   devices   this device's tracks or their states have changed
 *   view      detail { name }: 'join', 'call' or 'end' is now shown
 *
 * `actions` holds everything the user can do, shared by buttons, menus and shortcuts; see main.js and call.js.
 */

import { grantOf } from './address.js';
import { $ } from '../base/dom.js';
import { Devices } from '../devices/devices.js';

const KEPT = 500; // events queued for modules that load later; older ones are dropped

class Page extends EventTarget {
  room = null;
  devices = new Devices();
  stage = null;
  closed = null; // the Room whose call the user ended for everyone
  token = ''; // from the link; removed from the address bar
  actions = {};
  #due = 0;
  #late = new EventTarget();
  #kept = []; // events queued until the modules of deferred.js have subscribed; null afterwards

  on(type, then) {
    this.addEventListener(type, ({ detail }) => then(detail));
  }

  tell(type, detail) {
    this.dispatchEvent(new CustomEvent(type, { detail }));
  }

  /** Like on(), for room events in the modules of deferred.js: events since the start of the call are replayed to them. */
  follow(type, then) {
    this.#late.addEventListener(type, ({ detail }) => then(detail));
  }

  /** Emits a room event, and queues it for follow() until complete() is called. */
  pass(type, detail) {
    this.tell(type, detail);
    if (!this.#kept) {
      this.#late.dispatchEvent(new CustomEvent(type, { detail }));
      return;
    }
    if (type === 'call') this.#kept = [];
    this.#kept.push([type, detail]);
    if (this.#kept.length > KEPT) this.#kept.shift();
  }

  /** All modules that follow() have loaded: replays the queued events to them. */
  complete() {
    const kept = this.#kept;
    this.#kept = null;
    for (const [type, detail] of kept) this.#late.dispatchEvent(new CustomEvent(type, { detail }));
  }

  /** Emits `people` once for all changes before the next frame; by timer if the page is hidden and draws no frames. */
  changed() {
    if (this.#due) return;
    const then = () => {
      this.#due = 0;
      this.tell('people');
    };
    this.#due = document.hidden ? setTimeout(then) : requestAnimationFrame(then);
  }

  /** Shows one of the three views: 'join', 'call' or 'end'. */
  show(view) {
    const comes = $(`${view}-view`).hidden;
    for (const name of ['join', 'call', 'end']) $(`${name}-view`).hidden = name !== view;
    document.title = view === 'call' ? `${this.room.room} · ${location.host}` : location.host;
    if (comes && view === 'call') $('call-view').focus();
    this.tell('view', { name: view });
  }

  get inCall() {
    return this.room !== null && this.room.state !== 'ended';
  }

  /** Whether the user may only watch and listen (no permission to publish). */
  get listens() {
    const { publish } = (this.inCall && this.room.permissions) || grantOf(this.token) || {};
    return publish === false;
  }

  /** The link to share, which names only the room. Empty if the room cannot be joined without an invitation. */
  get link() {
    if (!this.room?.settings.public) return '';
    const link = new URL(location.pathname, location.href);
    link.searchParams.set('room', this.room.room);
    return link.href;
  }
}

export const page = new Page();
for (const type of ['change', 'list', 'released']) page.devices.addEventListener(type, () => page.tell('devices'));
