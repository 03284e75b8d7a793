/** The level meter of the microphone button, and the hint to people who talk while they are muted. */

import { $ } from '../base/dom.js';
import { hasAudio, meter } from '../devices/meter.js';
import { page } from '../app/page.js';
import { t } from '../i18n/texts.js';
import { closeToast, toast } from '../ui/toasts.js';

const TALKING = 0.62; // level (0 to 1) that counts as talking, well above keyboards and fans
const TALKING_TIMES = 8; // consecutive measurements, about a second
const REMIND_MS = 60_000;

let metered = null;
let stopMeter = null;
let loud = 0;
let reminded = -REMIND_MS;

function follow() {
  const track = page.inCall && hasAudio ? page.devices.track('microphone') : null;
  if (page.devices.status('microphone') === 'on') closeToast('muted');
  if (track === metered) return;
  stopMeter?.();
  [metered, stopMeter] = [track, null];
  if (!track) return;
  const cap = /** @type {HTMLElement} */ ($('mic-button').querySelector('.cap'));
  stopMeter = meter(track, (level) => {
    cap.style.setProperty('--level', isHeard() ? level.toFixed(2) : '0');
    page.tell('level', { level });
  });
}

/** Whether others can hear this microphone now. */
const isHeard = () => page.room.connected && page.devices.status('microphone') === 'on';

function remind({ level }) {
  loud = level > TALKING && page.room.connected && page.devices.status('microphone') === 'off' ? loud + 1 : 0;
  if (loud < TALKING_TIMES || performance.now() - reminded < REMIND_MS) return;
  reminded = performance.now();
  loud = 0;
  toast('muted', t('hint.muted'), { icon: 'microphone-off', action: { label: t('key.unmute'), then: () => page.devices.start(['microphone']) } });
}

page.on('devices', follow);
page.on('view', follow);
page.on('level', remind);
follow();
