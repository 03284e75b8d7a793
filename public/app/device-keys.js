/** The microphone and camera buttons, before and during the call. */

import { put, setIcon } from '../base/dom.js';
import { page } from './page.js';
import { has, t } from '../i18n/texts.js';

const KEYS = { microphone: ['key.mute', 'key.unmute', 'M'], camera: ['key.stop_video', 'key.start_video', 'V'] };

/** Sets a button's label and its tooltip with the shortcut. A non-empty `why` disables the button and becomes its tooltip. */
export function nameKey(button, label, shortcut, why = '') {
  const text = button.querySelector('.key__label');
  if (text) put(text, label);
  button.setAttribute('aria-label', label);
  button.title = why || (shortcut ? `${label} (${shortcut})` : label);
  button.setAttribute('aria-disabled', String(Boolean(why)));
}

/** What the browser asks for with an open permission prompt, and where the prompt is; empty before these texts have loaded. */
export function promptTexts(sources) {
  const phone = matchMedia('(pointer: coarse)').matches;
  return has('ask.both') ? [t(`ask.${sources.length > 1 ? 'both' : sources[0]}`), t(phone ? 'ask.where_phone' : 'ask.where')] : [];
}

/** Whether the browser asks for a source during a call, in which nothing is sent until it is answered. */
const isAsked = (source) => page.inCall && page.devices.asking.includes(source);

/** Why the keys of a source do nothing, if so. */
export const whyNot = (source) => (page.listens ? t('key.no_publish') : isAsked(source) ? promptTexts([source]).join(' ') : '');

/** Updates every button that toggles `source`. */
export function showDevice(source) {
  const status = page.devices.status(source);
  const on = status === 'on' || (status === 'starting' && !isAsked(source));
  const [turnOff, turnOn, shortcut] = KEYS[source];
  for (const button of document.querySelectorAll(`[data-toggle=${source}]`)) {
    setIcon(button.querySelector('svg'), on ? source : `${source}-off`);
    button.classList.toggle('is-off', !on);
    nameKey(button, t(on ? turnOff : turnOn), shortcut, whyNot(source));
    button.setAttribute('aria-busy', String(status === 'starting'));
  }
}
