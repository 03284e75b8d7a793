/** The settings dialog: devices, audio and video processing, and the page itself. Loaded when it is opened. */

import { button, element, icon, missing } from '../base/dom.js';
import { isTouched } from '../ui/here.js';
import { openDialog } from '../ui/overlay.js';
import { page } from '../app/page.js';
import { askToNotify, canNotify } from '../app/signs.js';
import { levelBar, picker } from '../devices/pickers.js';
import { choices, choose } from '../base/storage.js';
import { language, LANGUAGES, speak, t } from '../i18n/texts.js';

const SOUND = { noise: 'noiseSuppression', echo: 'echoCancellation', gain: 'autoGainControl' };

function section(title, rows) {
  const made = element('section', 'set');
  const inside = element('div', 'set__rows');
  inside.append(...rows);
  made.append(element('h3', '', title), inside);
  return made;
}

function row(title, ...inside) {
  const made = element('div', 'row');
  made.append(element('span', 'row__name', title), ...inside);
  return made;
}

/** A switch. If `then` returns a text, or a promise of one, the switch goes back off and shows that text as the reason. */
function toggle(name, on, then) {
  const made = element('div', 'row row--switch');
  const words = element('p', '', t(`settings.${name}`));
  const hint = element('small', '', t(`settings.${name}_text`));
  words.append(hint);
  const key = button('switch', {}, async () => {
    const now = key.getAttribute('aria-checked') !== 'true';
    key.setAttribute('aria-checked', String(now));
    const refused = await then(now);
    if (typeof refused !== 'string') return;
    key.setAttribute('aria-checked', 'false');
    hint.textContent = refused;
  });
  hint.setAttribute('role', 'status');
  key.setAttribute('role', 'switch');
  key.setAttribute('aria-checked', String(on));
  key.setAttribute('aria-label', t(`settings.${name}`));
  key.dataset.setting = name;
  made.append(words, key);
  return made;
}

/** A segmented control with the keyboard behaviour of a radio group: arrow keys choose. */
function segment(label, options, now, then) {
  const box = element('div', 'seg');
  box.setAttribute('role', 'radiogroup');
  box.setAttribute('aria-label', label);
  const pick = (value) => {
    for (const one of box.children) {
      const on = one.value === value;
      one.setAttribute('aria-checked', String(on));
      one.tabIndex = on ? 0 : -1;
    }
    then(value);
  };
  for (const [value, text] of options) {
    const one = button('', {}, () => pick(value));
    one.textContent = text;
    one.value = value;
    one.setAttribute('role', 'radio');
    one.setAttribute('aria-checked', String(value === now));
    one.tabIndex = value === now ? 0 : -1;
    box.append(one);
  }
  box.addEventListener('keydown', ({ key }) => {
    const step = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[key];
    if (!step) return;
    const all = [...box.children];
    const next = all[(all.indexOf(document.activeElement) + step + all.length) % all.length];
    next.focus();
    pick(next.value);
  });
  return box;
}

function languages() {
  const box = element('span', 'picker');
  const select = element('select', 'select');
  select.id = 'settings-language';
  select.setAttribute('aria-label', t('settings.language'));
  select.append(...Object.entries(LANGUAGES).map(([value, label]) => Object.assign(element('option', '', label), { value })));
  select.value = language;
  select.addEventListener('change', async () => {
    await speak(select.value, true).catch(missing);
    openSettings(); // again, in the new language
  });
  box.append(select, icon('down'));
  return box;
}

async function notices(on) {
  if (on && !(await askToNotify())) return t('settings.notify_refused');
  choose({ notify: on });
  return null;
}

export function openSettings() {
  const { devices } = page;
  const level = levelBar(devices);
  const pickers = Object.fromEntries(['microphone', 'speaker', 'camera'].map((source) => [source, picker(devices, source, `settings-${source}`)]));
  const sound = [
    row(t('device.microphone'), pickers.microphone, level.bar, level.words),
    row(t('device.speaker'), pickers.speaker),
    ...Object.entries(SOUND).map(([name, key]) =>
      toggle(name, choices[key], (on) => {
        choose({ [key]: on });
        devices.pick('microphone');
      }),
    ),
  ];
  const camera = [row(t('device.camera'), pickers.camera)];
  if (devices.canBlur) camera.push(toggle('blur', choices.blur, (on) => devices.blur(on)));
  const themes = ['auto', 'light', 'dark'].map((name) => [name, t(`settings.theme.${name}`)]);
  const rest = [
    row(
      t('settings.theme'),
      segment(t('settings.theme'), themes, choices.theme, (theme) => {
        choose({ theme });
        page.tell('theme');
      }),
    ),
    row(t('settings.language'), languages()),
    toggle('sounds', choices.sounds, (on) => choose({ sounds: on })),
    ...(canNotify() ? [toggle('notify', choices.notify && Notification.permission === 'granted', notices)] : []),
    toggle('motion', choices.motion, (on) => choose({ motion: on })),
    ...(isTouched() ? [] : [toggle('shortcuts', choices.shortcuts, (on) => choose({ shortcuts: on }))]),
  ];
  const body = [section(t('settings.sound'), sound), section(t('device.camera'), camera), section(t('settings.page'), rest)];
  const dialog = openDialog({ id: 'settings', title: t('settings.title'), body });
  const refresh = () => {
    for (const one of Object.values(pickers)) one.refresh();
    level.refresh();
  };
  page.addEventListener('devices', refresh);
  dialog.addEventListener('close', () => {
    page.removeEventListener('devices', refresh);
    level.stop();
  });
}
