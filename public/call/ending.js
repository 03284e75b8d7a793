/** The view shown without a call: the reason, the actions that help, and a countdown to the next automatic attempt. */

import { keepEnd } from '../app/address.js';
import { $, button, put } from '../base/dom.js';
import { roomInfo } from '../base/room-info.js';
import { recall, remember, ticketKey } from '../base/storage.js';
import { copyText } from '../ui/here.js';
import '../ui/languages.js';
import { page } from '../app/page.js';
import { endText, remedyOf } from '../i18n/reasons.js';
import { t } from '../i18n/texts.js';

const LABELS = {
  rejoin: 'act.rejoin',
  join: 'join.button',
  ask: 'act.ask',
  move: 'act.move',
  anew: 'act.anew',
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
const ELSEWHERE = ['another', 'another_link']; // in a frame, the embedding page chooses the room
const FRAMED = window.parent !== window;
const ICONS = { request: 'copy', copy_admin: 'copy', again: 'again', now: 'again' };

let ticking = 0;
let shown = null; // the last ending

/**
 * Shows why a call is over, and keeps what a reload needs: the ending, or the way in if it is one to try again. `ending` is
 * { code, room, name }, with `invited` if the user came with a token, and `own` if the user ended the call for everyone.
 */
export async function showEnd(ending) {
  shown = ending;
  const { code, room, name, invited } = ending;
  const { token } = page;
  const remedy = remedyOf(code);
  const asks = remedy && remedy !== 'again'; // a reload shows the ending again
  const returns = recall('sessionStorage', ticketKey(room));
  const show = (lost) => {
    keepEnd(remedy === 'again' ? { name, token } : { ending, token: asks && !lost ? token : '' });
    showEnding(endText({ ...ending, lost }, room), (action) => press(action, ending));
  };
  const lost = asks && invited && !returns && !token;
  page.show('end');
  show(lost);
  if (!asks || returns || lost) return;
  const refusal = (await roomInfo(room, token))?.refusal;
  if (refusal && !remedyOf(refusal) && shown === ending && !$('end-view').hidden) show(true); // as for a link that has expired
}

/** Handles the buttons of an ending. */
export function press(action, ending) {
  const { code, room, name } = ending;
  if (FRAMED && action === 'stop') showEnd({ ...ending, code: 'stopped' });
  else if (['another', 'another_link', 'stop'].includes(action)) {
    page.token = '';
    page.actions.preview({ room: '', name });
  } else if (action === 'anew') {
    remember('sessionStorage', ticketKey(room), '');
    page.actions.preview({ room, name: '' });
  } else if (action === 'change') page.actions.preview({ room, name });
  else if (action === 'request') copy(t('act.request_text', { room, reason: endText(ending, room).title }), action);
  else if (code === 'no_webrtc') location.reload();
  else page.actions.join({ room, name, move: action === 'move' });
}

/** Copies a text and confirms it in the button, since toasts exist only in the call. */
export async function copy(text, action) {
  if (await copyText(text)) document.querySelector(`[data-act=${action}] span`).textContent = t('act.copied');
  else Object.assign($('end-tech'), { hidden: false, textContent: text });
}

/** Shows a reason from i18n/reasons.js with its actions; `act(name)` is called for the button pressed. */
export function showEnding({ key, title, text, actions: all, tech = null }, act) {
  const actions = all.filter((one) => !FRAMED || !ELSEWHERE.includes(one));
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

/** Counts down beside the actions, then calls `then`. With 0 seconds it shows that an attempt is under way. `all` is the whole pause. */
export function countDown(seconds, then, all = seconds) {
  clearInterval(ticking);
  $('end-wait').hidden = false;
  const until = performance.now() + seconds * 1000;
  const tick = () => {
    const left_s = (until - performance.now()) / 1000;
    put($('end-countdown'), left_s > 0 ? t('wait.again_in', { count: Math.ceil(left_s) }) : t('wait.trying'));
    $('end-progress').style.setProperty('--part', String(seconds > 0 ? Math.min(1, 1 - left_s / all) : 1));
    if (left_s > 0) return;
    clearInterval(ticking);
    then?.();
  };
  ticking = setInterval(tick, 250);
  tick();
}

page.on('view', ({ name }) => name !== 'end' && clearInterval(ticking));
