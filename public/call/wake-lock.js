/** A call is watched without touching anything: a phone's screen stays on. A hidden page loses the lock and asks again. */

import { page } from '../app/page.js';

let lock = null;

async function stayAwake() {
  if (page.inCall && document.visibilityState === 'visible') lock = await navigator.wakeLock?.request('screen').catch(() => null);
}

function rest({ state }) {
  if (state !== 'ended') return;
  lock?.release();
  lock = null;
}

page.follow('welcome', stayAwake);
page.on('state', rest);
document.addEventListener('visibilitychange', stayAwake);
