/**
 * A call is in one tab. A duplicated tab has a copy of the call's ticket: it finds the call taken, and can move it here. Tabs tell
 * each other by Web Locks and a BroadcastChannel, which reach pages of this origin only. Browsers have no locks without https.
 */

import { page } from '../app/page.js';

const RELOAD_MS = 500; // until the lock of a page that is being reloaded is released
const MOVE_MS = 5_000; // for another tab to leave the call

const channel = navigator.locks && new BroadcastChannel('sfu.call');
const sessionOf = (ticket) => ticket.split('.')[0]; // the rest is secret
let held = { session: '', release: () => {} };
let moved = null; // the Room whose call went to another tab

export const hasMoved = (room) => room === moved;

/** Keeps a session in this tab; resolves to false if another tab has it. With `move`, that tab is asked to leave the call. */
function keep(session, move) {
  if (!channel || session === held.session) return Promise.resolve(true);
  letGo();
  const patience = new AbortController();
  setTimeout(() => patience.abort(), move ? MOVE_MS : RELOAD_MS);
  return new Promise((resolve) => {
    const taken = () => {
      resolve(true);
      return new Promise((release) => (held = { session, release: () => release(null) }));
    };
    navigator.locks.request(`sfu.call/${session}`, { signal: patience.signal }, taken).catch(() => resolve(!patience.signal.aborted));
    if (move) channel.postMessage(session);
  });
}

function letGo() {
  held.release();
  held = { session: '', release: () => {} };
}

/** Whether the call of a ticket can go on in this tab; shows why if not. */
export async function goesOnHere(ticket, { room, name, move }) {
  if (await keep(sessionOf(ticket), move)) return true;
  page.actions.end({ code: 'other_tab', room, name, invited: Boolean(page.token) });
  return false;
}

channel?.addEventListener('message', ({ data }) => {
  if (data !== held.session) return;
  moved = page.room;
  if (page.inCall) page.room.stepOut();
  letGo();
});
page.follow('welcome', () => page.room.ticket && keep(sessionOf(page.room.ticket), false));
page.on('state', ({ state }) => state === 'ended' && letGo());
