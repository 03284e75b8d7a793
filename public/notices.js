/** What the page tells during a call: devices that come and go, who comes and goes, and what stands in the way. */

import { secureLink } from './devicekeys.js';
import { $, put } from './dom.js';
import { page } from './page.js';
import { t } from './texts.js';
import { closeToast, say, toast } from './toasts.js';
import { deviceProblems, waitingText } from './words.js';

const QUIET_ERRORS = new Set(['bad_candidate', 'too_many_candidates', 'unexpected_answer', 'bad_source', 'chat_too_long']);
const TALKING = 0.62; // of the level: well above keyboards and fans
const TALKING_TIMES = 8; // in a row, about a second
const REMIND_MS = 60_000;

let loud = 0;
let reminded = -REMIND_MS;

/** What is wrong with microphone and camera, in the call. */
export function tellDevices() {
  if (!page.inCall) return;
  const { devices } = page;
  for (const { text, action, sources, insecure } of deviceProblems(devices.status('microphone'), devices.status('camera'))) {
    toast('devices', text, { action: insecure ? secureLink() : action && { label: action, then: () => retry(sources) } });
  }
}

export async function retry(sources) {
  await page.devices.start(sources);
  tellDevices();
}

/** What stands between the person and the call, or null. */
export function showBanner(words, frozen) {
  $('banner').hidden = !words;
  $('stage').classList.toggle('is-frozen', frozen);
  if (!words) return;
  put($('banner-title'), words.title);
  put($('banner-text'), [words.text, words.tech].filter(Boolean).join(' '));
}

export const waitingWords = (facts) => waitingText(page.room.error, { ...facts, host: location.hostname, port: page.room.mediaPort, room: page.room.room });

function remind(level) {
  loud = level > TALKING && page.devices.status('microphone') === 'off' ? loud + 1 : 0;
  if (loud < TALKING_TIMES || performance.now() - reminded < REMIND_MS) return;
  reminded = performance.now();
  loud = 0;
  toast('muted', t('hint.muted'), { icon: 'microphone-off', action: { label: t('key.unmute'), then: () => page.devices.start(['microphone']) } });
}

function followDevices() {
  const on = (type, then) => page.devices.addEventListener(type, ({ detail }) => page.inCall && then(detail));
  const source = { microphone: 'microphone', camera: 'camera' };
  on('lost', (of) => toast('lost', t(`device.gone.${of.source}`), { icon: `${of.source}-off`, action: { label: t('look_again'), then: () => retry([of.source]) } }));
  on('found', (of) => toast('found', t(`device.found.${of.source}`), { icon: of.source, action: { label: t('device.turn_on'), then: () => retry([of.source]) } }));
  on('now', (of) => toast('now', t(`device.now.${of.source}`, { label: of.label }), { icon: source[of.source] }));
  on('plugged', (of) =>
    toast('now', t(`device.new.${of.source}`, { label: of.label }), {
      icon: source[of.source],
      action: {
        label: t('device.use'),
        then: async () => {
          await page.devices.pick(of.source, of.id);
          toast('now', t(`device.now.${of.source}`, { label: of.label }), { icon: source[of.source] });
        },
      },
    }),
  );
  on('taken', () => toast('taken', t('device.taken'), { icon: 'warning', ask: true, action: { label: t('device.restore'), then: () => page.devices.pick('microphone') } }));
  on('returned', () => closeToast('taken'));
}

export function startNotices() {
  followDevices();
  page.on('level', ({ level }) => remind(level));
  page.on('devices', () => page.devices.status('microphone') === 'on' && closeToast('muted'));
  page.on('joined', ({ name }) => say(t('stage.joined', { name })));
  page.on('left', ({ name }) => say(t('stage.left', { name })));
  page.on('expiring', ({ seconds }) => toast('expiring', t('hint.expiring', { count: seconds }), { icon: 'clock' }));
  page.on('error', ({ code, message }) => {
    if (!QUIET_ERRORS.has(code)) toast('error', code === 'no_common_codec' ? t('hint.no_common_codec') : message, { icon: 'warning' });
  });
  page.on('asked', ({ name, source }) => {
    const then = () => page.devices.start([source === 'camera' ? 'camera' : 'microphone']);
    toast('asked', t('hint.asked', { name }), { icon: 'microphone-off', ask: true, action: { label: t('key.unmute'), then } });
  });
  page.on('mute', ({ peer, source, muted }) => {
    if (peer !== page.room.self || !muted || page.devices.status(source) !== 'on') return;
    page.devices.stop(source);
    toast('muted_by', t('hint.muted_by'), { icon: 'microphone-off' });
  });
}
