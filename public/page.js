/**
 * What the parts of the page share. Every event of the current room comes out here too, with the same detail, so that a part
 * listens once and need not care which connection it is; and besides those:
 *
 *   call      detail { again }: another Room is the current one (page.room); forget the last one, unless it is the same room again
 *   people    who is here, what they send or how they are marked has changed (at most once a frame)
 *   devices   this device's tracks or their states have changed
 *   view      detail { name }: 'join', 'call' or 'end' is shown now
 *
 * `actions` is what a person can do, whatever key, menu or shortcut is used: see main.js. `more` and `tileItems` hold functions
 * that return items for the More menu, and for the menu on a person's tile (given { peer, name, isSelf }).
 */

import { $ } from './dom.js';

class Page extends EventTarget {
  room = null;
  devices = null;
  stage = null;
  token = ''; // what the link said, kept out of the address bar
  actions = {};
  more = [];
  tileItems = [];
  #due = 0;

  on(type, then) {
    this.addEventListener(type, ({ detail }) => then(detail));
  }

  tell(type, detail) {
    this.dispatchEvent(new CustomEvent(type, { detail }));
  }

  /** Tells `people` once for all that changes before the next frame is drawn; hidden pages draw none. */
  changed() {
    if (this.#due) return;
    const then = () => {
      this.#due = 0;
      this.tell('people');
    };
    this.#due = document.hidden ? setTimeout(then) : requestAnimationFrame(then);
  }

  /** Shows one of the three views: join, call, end. */
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

  /** The link to share: the room and nothing about who shares it. */
  get link() {
    const link = new URL(location.pathname, location.href);
    link.searchParams.set('room', this.room?.room ?? '');
    return link.href;
  }

  /** The name of anybody in the room. */
  nameOf(peer) {
    return peer === this.room?.self ? this.room.name : (this.room?.participants.get(peer)?.name ?? '');
  }
}

export const page = new Page();
