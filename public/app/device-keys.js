/** The keys of microphone and camera, before the call and in it, and the link to a page where they work. */

import { element, put, setIcon } from '../base/dom.js';
import { page } from './page.js';
import { t } from '../i18n/texts.js';

const KEYS = { microphone: ['key.mute', 'key.unmute', 'M'], camera: ['key.stop_video', 'key.start_video', 'V'] };

/** Names a key: its label, its tooltip with the shortcut, and why it is unavailable, if it is. */
export function nameKey(button, label, shortcut, why = '') {
  const text = button.querySelector('.key__label');
  if (text) put(text, label);
  button.setAttribute('aria-label', label);
  button.title = why || (shortcut ? `${label} (${shortcut})` : label);
  button.setAttribute('aria-disabled', String(Boolean(why)));
}

/** Shows a device everywhere it has a key. */
export function showDevice(source) {
  const status = page.devices.status(source);
  const on = status === 'on' || status === 'starting';
  const [turnOff, turnOn, shortcut] = KEYS[source];
  for (const button of document.querySelectorAll(`[data-toggle=${source}]`)) {
    setIcon(button.querySelector('svg'), on ? source : `${source}-off`);
    button.classList.toggle('is-off', !on);
    nameKey(button, t(on ? turnOff : turnOn), shortcut, page.listens ? t('key.no_publish') : '');
    button.setAttribute('aria-busy', String(status === 'starting'));
  }
}

/** A link to the same page with https. */
export function secureLink() {
  const link = element('a', 'btn btn--small', t('open_secure'));
  link.href = location.href.replace(/^http:/, 'https:');
  return link;
}
