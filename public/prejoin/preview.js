/** The preview before the call: self-view, level meter and device pickers. */

import { promptTexts, showDevice } from '../app/device-keys.js';
import { secureLink } from '../app/secure.js';
import { $, button, element, facesAway, nameWith, put } from '../base/dom.js';
import { isTouched } from '../ui/here.js';
import { page } from '../app/page.js';
import { canFlip, flip } from '../devices/flip.js';
import { levelBar, picker } from '../devices/pickers.js';
import { deviceProblems } from '../i18n/reasons.js';
import { has, more, t, texts } from '../i18n/texts.js';
import { isProblem } from '../i18n/words.js';

let parts = null; // { pickers, level, format } while the view is shown

export function showPreview() {
  if ($('join-view').hidden) return; // the user has joined already
  const { devices } = page;
  parts?.level.stop();
  const level = levelBar(devices);
  const format = element('p', 'hint');
  const test = button('hint-btn', { label: t('device.test') }, async () => (await import('../devices/meter.js')).testTone(devices.speaker));
  const pickers = ['microphone', 'camera', 'speaker'].map((source) => picker(devices, source, `join-${source}`));
  parts = { pickers, level, format };
  const below = { microphone: [level.bar, level.words], camera: [format], speaker: [test] };
  const fields = ['microphone', 'camera', 'speaker'].map((source, index) => {
    const field = element('div', `field field--${source}`);
    const label = element('label', '', t(`device.${source}`));
    label.htmlFor = `join-${source}`;
    field.append(label, pickers[index], ...below[source]);
    return field;
  });
  $('join-devices').replaceChildren(...fields);
  showDevices();
}

function showDevices() {
  if (!parts) return;
  const { devices } = page;
  for (const one of parts.pickers) one.refresh();
  parts.level.refresh();
  for (const source of ['microphone', 'camera']) showDevice(source);
  const picture = devices.status('camera') === 'on';
  const { height, frameRate } = picture ? devices.track('camera').getSettings() : {};
  put(parts.format, height ? t('device.format', { height: String(height), rate: Math.round(frameRate ?? 30) }) : '');
  $('preview-video').hidden = !picture;
  $('preview-video').classList.toggle('mirror', !facesAway(devices.track('camera')));
  $('flip-button').hidden = !(isTouched() && canFlip(devices)); // with a mouse there is a list
  put($('flip-button').lastElementChild, t('key.flip'));
  const shown = picture ? devices.stream : null;
  if ($('preview-video').srcObject !== shown) $('preview-video').srcObject = shown;
  $('join-devices').classList.toggle('is-empty', !page.listens && ['microphone', 'camera'].every((source) => isProblem(devices.status(source)) && devices.status(source) !== 'busy')); // another one may start
  showProblems(picture);
}

function showProblems(picture) {
  const box = $('preview-problem');
  const { devices } = page;
  const statuses = ['microphone', 'camera'].map((source) => devices.status(source));
  if (statuses.some(isProblem) && !has('problem.insecure')) return void more('late').catch(() => {}); // shows the preview anew
  const problems = deviceProblems(...statuses);
  const { asking } = devices;
  const key = JSON.stringify([problems, picture, asking, page.listens]);
  if (box.dataset.key === key) return; // unchanged: a status region is announced at every write
  box.dataset.key = key;
  box.classList.toggle('has-picture', picture);
  const first = page.listens ? [element('p', 'preview__line', t('key.no_publish'))] : asking.length ? [question(asking)] : [];
  box.replaceChildren(
    ...first,
    ...problems.map((problem) => {
      const line = element('div', 'preview__line');
      const words = element('p', '', problem.text);
      line.append(words);
      if (problem.insecure) line.append(secureLink());
      if (!problem.action) return line;
      line.append(button('btn btn--small', { label: problem.action }, () => devices.start(problem.sources)));
      nameWith(line.lastElementChild, words);
      return line;
    }),
  );
}

/** While a permission prompt is open: what the browser asks for, and where the prompt is. */
function question(asking) {
  const line = element('div', 'preview__line');
  const [what, where] = promptTexts(asking);
  const phone = matchMedia('(pointer: coarse)').matches;
  const picture = element('div', phone ? 'ask ask--phone' : 'ask');
  picture.setAttribute('aria-hidden', 'true');
  picture.append(element('i', 'ask__bar'), element('i', 'ask__question'));
  line.append(picture, element('p', 'ask__words', what), element('p', 'small muted', where));
  return line;
}

/** Releases what the view holds. */
function leave() {
  parts?.level.stop();
  parts = null;
  $('join-devices').replaceChildren();
  $('preview-video').srcObject = null;
}

$('flip-button').addEventListener('click', () => flip(page.devices));
page.on('devices', showDevices);
page.on('view', ({ name }) => name !== 'join' && leave());
texts.addEventListener('change', () => parts && showPreview());
