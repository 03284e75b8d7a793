/** Keeps a phone's screen on during a call. A hidden page loses the wake lock and requests it again when visible. */

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
