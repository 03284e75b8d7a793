/** Notices during a call: about devices, participants, moderation and errors. */

import { secureLink } from '../app/secure.js';
import { copyText } from '../ui/here.js';
import { page } from '../app/page.js';
import { notify } from '../app/signs.js';
import { deviceProblems } from '../i18n/reasons.js';
import { has, t } from '../i18n/texts.js';
import { clearToasts, closeToast, toast } from '../ui/toasts.js';

const STOPPED = { microphone: 'microphone-off', camera: 'camera-off', screen: 'screen' }; // sources that a moderator can stop, with their icons
const QUIET_ERRORS = new Set(['bad_candidate', 'too_many_candidates', 'unexpected_answer', 'bad_source', 'chat_too_long']);

/** Shows the problems of microphone and camera as toasts. */
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

followDevices();
page.on('view', ({ name }) => name !== 'call' && clearToasts());
page.follow('error', ({ code }) => {
  const key = `error.${code}`;
  if (!QUIET_ERRORS.has(code)) toast('error', t(has(key) ? key : 'error.other'), { icon: 'warning' });
});
page.follow('asked', ({ name, source }) => {
  if (page.listens) return;
  const then = () => page.devices.start([source === 'camera' ? 'camera' : 'microphone']);
  const text = t('hint.asked', { name });
  notify('asked', text);
  toast('asked', text, { icon: 'microphone-off', ask: true, action: { label: t('key.unmute'), then } });
});
page.follow('mute', ({ peer, source, muted, by }) => {
  const { devices, room } = page;
  if (peer !== room.self || !muted || !STOPPED[source] || devices.status(source) !== 'on') return;
  if (source === 'screen') devices.unshare();
  else devices.stop(source);
  toast('stopped', t(`hint.stopped.${source}`, { name: by || t('hint.stopped.by') }), { icon: STOPPED[source] });
});
