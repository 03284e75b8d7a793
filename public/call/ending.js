/** The view shown without a call: the reason, the actions that help, and a countdown to the next automatic attempt. */

import { $, button, put } from '../base/dom.js';
import '../ui/languages.js';
import { page } from '../app/page.js';
import { t } from '../i18n/texts.js';

const LABELS = {
  rejoin: 'act.rejoin',
  again: 'again',
  now: 'wait.now',
  stop: 'wait.stop',
  change: 'act.change',
  another: 'act.another',
  another_link: 'act.another_link',
  request: 'act.request',
  copy_admin: 'act.copy_admin',
  leave: 'key.leave',
};
const ICONS = { request: 'copy', copy_admin: 'copy', again: 'again', now: 'again' };

let ticking = 0;

/** Shows a reason from i18n/reasons.js with its actions; `act(name)` is called for the button pressed. */
export function showEnding({ key, title, text, actions, tech = null }, act) {
  clearInterval(ticking);
  put($('end-title'), title);
  put($('end-text'), text);
  put($('end-tech'), tech ?? '');
  $('end-tech').hidden = !tech;
  $('end-wait').hidden = true;
  const box = $('end-actions');
  if (box.dataset.shown === JSON.stringify([key, actions, title])) return; // keeps a button that is under the pointer
  box.dataset.shown = JSON.stringify([key, actions, title]);
  const looks = (index) => (index ? 'btn btn--big' : 'btn btn--primary btn--big');
  box.replaceChildren(
    ...actions.map((name, index) => {
      const made = button(looks(index), { label: t(LABELS[name]), name: ICONS[name] }, () => act(name));
      made.dataset.act = name;
      return made;
    }),
  );
  $('end-title').focus();
}

/** Counts down beside the actions, then calls `then`. With 0 seconds it shows that an attempt is under way. */
export function countDown(seconds, then) {
  clearInterval(ticking);
  $('end-wait').hidden = false;
  const until = performance.now() + seconds * 1000;
  const tick = () => {
    const left_s = (until - performance.now()) / 1000;
    put($('end-countdown'), left_s > 0 ? t('wait.again_in', { count: Math.ceil(left_s) }) : t('wait.trying'));
    $('end-progress').style.setProperty('--part', String(seconds ? Math.min(1, 1 - left_s / seconds) : 1));
    if (left_s > 0) return;
    clearInterval(ticking);
    then?.();
  };
  ticking = setInterval(tick, 250);
  tick();
}

page.on('view', ({ name }) => name !== 'end' && clearInterval(ticking));
