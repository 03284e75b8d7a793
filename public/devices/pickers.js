/** Form controls that choose a device, used before the call and in the settings. */

import { element, icon, put } from '../base/dom.js';
import { hasAudio, meter } from './meter.js';
import { choices } from '../base/storage.js';
import { t } from '../i18n/texts.js';

/** The devices of a source as [id, label], including one in use that is not listed. For the speaker, the system default ('') comes first. */
export function optionsOf(devices, source) {
  const found = devices.choices[source].map(({ id, label }, index) => [id, label || t(`device.numbered.${source}`, { number: index + 1 })]);
  if (source === 'speaker') return [['', t('device.usual')], ...(canChooseSpeaker() ? found : [])];
  if (!['on', 'off', 'starting', 'busy'].includes(devices.status(source))) return []; // none of them can be used
  const [id, label] = [runningOf(devices, source), devices.track(source)?.label];
  return id && label && !found.some(([one]) => one === id) ? [[id, label], ...found] : found;
}

const runningOf = (devices, source) => devices.track(source)?.getSettings().deviceId;

/** The text shown instead of an empty list, by the status of its source. "None found" only after devices were requested. */
const INSTEAD = { none: 'none', unsupported: 'unsupported', dismissed: 'dismissed', busy: 'busy', starting: 'starting', off: 'usual' };

function insteadOf(devices, source) {
  const status = devices.status(source);
  return t(`device.${devices.asking.includes(source) ? 'asking' : (INSTEAD[status] ?? 'refused')}`);
}

export const canChooseSpeaker = () => 'setSinkId' in HTMLMediaElement.prototype;

/** The id of the device in use. */
export function inUse(devices, source) {
  if (source === 'speaker') return devices.speaker;
  const chosen = devices.choices[source].find(({ id }) => id === choices[source]);
  return runningOf(devices, source) || chosen?.id || '';
}

/** A <select> for a source with the given `id`; refresh() updates it after the devices have changed. */
export function picker(devices, source, id) {
  const box = element('span', 'picker');
  const select = element('select', 'select');
  select.id = id;
  select.setAttribute('aria-label', t(`device.${source}`));
  select.addEventListener('change', () => devices.pick(source, select.value));
  box.append(select, icon('down'));
  box.refresh = () => {
    const options = optionsOf(devices, source);
    const instead = insteadOf(devices, source);
    const key = JSON.stringify(options.length ? options : instead);
    select.disabled = options.length === 0;
    if (select.dataset.key !== key) {
      select.dataset.key = key;
      const made = options.map(([value, label]) => Object.assign(element('option', '', label), { value }));
      select.replaceChildren(...(made.length ? made : [element('option', '', instead)]));
    }
    if (options.length) select.value = inUse(devices, source);
    if (select.selectedIndex < 0) select.selectedIndex = 0;
  };
  box.refresh();
  return box;
}

/** A level bar for the microphone, with a sentence. Call refresh() after device changes and stop() at the end. */
export function levelBar(devices) {
  const bar = element('div', 'level');
  const words = element('p', 'hint');
  bar.setAttribute('role', 'meter');
  bar.setAttribute('aria-label', t('device.level'));
  bar.setAttribute('aria-valuemin', '0');
  bar.setAttribute('aria-valuemax', '100');
  bar.setAttribute('aria-valuenow', '0');
  let [of, stop, heard] = [null, null, false];
  const show = (level) => {
    bar.style.setProperty('--level', level.toFixed(2));
    const percent = String(Math.round(level * 10) * 10);
    if (bar.getAttribute('aria-valuenow') !== percent) bar.setAttribute('aria-valuenow', percent);
    if (level > 0.35) heard = true;
    put(words, of ? t(heard ? 'device.hear' : 'device.quiet') : devices.status('microphone') === 'off' ? t('device.off') : '');
  };
  const refresh = () => {
    const track = hasAudio && devices.status('microphone') === 'on' ? devices.track('microphone') : null;
    if (track === of) return of ? undefined : show(0); // the reason why it is off may have changed
    stop?.();
    [of, stop, heard] = [track, null, false];
    if (track) stop = meter(track, show);
    else show(0);
  };
  show(0);
  refresh();
  return { bar, words, refresh, stop: () => stop?.() };
}
