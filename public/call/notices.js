/** Notices during a call: about devices, participants, moderation and errors. */

import { promptTexts } from '../app/device-keys.js';
import { secureLink } from '../app/secure.js';
import { $ } from '../base/dom.js';
import { copyText } from '../ui/here.js';
import { page } from '../app/page.js';
import { notify } from '../app/signs.js';
import { deviceProblems } from '../i18n/reasons.js';
import { clock, has, t } from '../i18n/texts.js';
import { clearToasts, closeToast, toast } from '../ui/toasts.js';

const STOPPED = { microphone: 'microphone-off', camera: 'camera-off', screen: 'screen' }; // sources that a moderator can stop, with their icons
const SOON_S = 90; // a restart within this time is announced without its time
const ASKED_MS = 2_000; // from a permission prompt to its toast: most prompts are answered or seen at once
const QUIET_ERRORS = new Set(['bad_candidate', 'too_many_candidates', 'unexpected_answer', 'bad_source', 'chat_too_long']);

const standing = new Map(); // toasts that are untrue once one of their sources is on, by id

function deviceToast(id, sources, text, options) {
  standing.set(id, sources);
  toast(id, text, options);
}

page.on('devices', () => {
  for (const [id, sources] of standing) if (sources.some((source) => page.devices.status(source) === 'on')) closeToast(id);
});

/** Shows the problems of microphone and camera, or of one of them, as toasts. */
export function tellDevices(of = ['microphone', 'camera']) {
  if (!page.inCall) return;
  const { devices } = page;
  for (const { text, action, sources, insecure } of deviceProblems(devices.status('microphone'), devices.status('camera'))) {
    if (!of.some((source) => sources.includes(source))) continue; // it may work by now
    deviceToast('devices', sources, text, { action: insecure ? secureLink() : action && { label: action, then: () => retry(sources) } });
  }
}

let told = ''; // the sources that a permission prompt was open for
let telling = 0;

/** While the browser asks for permission, which it may do out of sight, a toast says so. */
function tellAsking() {
  const asking = $('call-view').hidden ? [] : page.devices.asking;
  if (String(asking) === told) return;
  told = String(asking);
  clearTimeout(telling);
  closeToast('asking');
  if (told) telling = setTimeout(() => toast('asking', promptTexts(asking).join(' '), { icon: asking[0], brief: false }), ASKED_MS);
}

export async function retry(sources) {
  await page.devices.start(sources);
  tellDevices(sources);
}

/** Says why a button does nothing: its tooltip, which touch never shows. */
export const explain = (why) => toast('why', why, { icon: 'warning' });

export async function copyLink() {
  if (!page.link) return page.actions.invite();
  if (await copyText(page.link)) toast('copy', t('link.copied'), { icon: 'check' });
  else toast('copy', t('link.show', { link: page.link }));
}

/** The browser's autoplay policy blocks sound until a user gesture. */
export function soundHeld() {
  toast('sound', t('hint.sound'), { icon: 'volume', action: { label: t('hint.hear'), then: () => page.stage.resume() } });
}

function followDevices() {
  const on = (type, then) => page.devices.addEventListener(type, ({ detail }) => page.inCall && then(detail));
  const source = { microphone: 'microphone', camera: 'camera' };
  on('lost', (of) => deviceToast('lost', [of.source], t(`device.gone.${of.source}`), { icon: `${of.source}-off`, action: { label: t('look_again'), then: () => retry([of.source]) } }));
  on('found', (of) => deviceToast('found', [of.source], t(`device.found.${of.source}`), { icon: of.source, action: { label: t('device.turn_on'), then: () => retry([of.source]) } }));
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

let may = {}; // what the user was told last that they may do

page.follow('welcome', () => (may = { ...page.room.permissions }));
followDevices();
page.on('view', ({ name }) => name !== 'call' && clearToasts());
for (const type of ['devices', 'view']) page.on(type, tellAsking);
tellAsking();
page.follow('error', ({ code }) => {
  const key = `error.${code}`;
  if (!QUIET_ERRORS.has(code)) toast('error', t(has(key) ? key : 'error.other'), { icon: 'warning' });
});
page.follow('draining', ({ in_s: inS }) => {
  const text = inS < SOON_S ? t('hint.draining_soon') : t('hint.draining', { time: clock(Date.now() + inS * 1000) });
  toast('draining', text, { icon: 'warning', brief: false });
});
for (const type of ['welcome', 'bye']) page.follow(type, () => closeToast('draining')); // if the server still drains, it says so again
page.follow('permissions', ({ publish, moderate }) => {
  const { publish: sent = publish, moderate: led = moderate } = may;
  may = { publish, moderate };
  if (publish !== sent) toast('may', t(publish ? 'hint.may_publish' : 'hint.may_not_publish'), { icon: publish ? 'microphone' : 'microphone-off' });
  else if (moderate !== led) toast('may', t(moderate ? 'hint.moderator' : 'hint.no_moderator'), { icon: 'shield' });
});
page.follow('asked', ({ name, source }) => {
  if (page.listens) return;
  const of = source === 'camera' ? 'camera' : 'microphone';
  const then = () => page.devices.start([of]);
  const text = t('hint.asked', { name });
  notify('asked', text);
  deviceToast('asked', [of], text, { icon: 'microphone-off', ask: true, action: { label: t('key.unmute'), then } });
});
page.follow('mute', ({ peer, source, muted, by }) => {
  const { devices, room } = page;
  if (peer !== room.self || !muted || !STOPPED[source] || devices.status(source) !== 'on') return;
  if (source === 'screen') devices.unshare();
  else devices.stop(source);
  toast('stopped', t(`hint.stopped.${source}`, { name: by || t('hint.stopped.by') }), { icon: STOPPED[source] });
});
