/** Texts and actions for errors and device problems, by the protocol's codes. No page elements. */

import { has, list, t } from './texts.js';
import { isProblem } from './words.js';

const WHOLE = ['insecure', 'barred', 'dismissed', 'system']; // problems whose text names no device

/** The problems of microphone and camera: a list of { text, action, sources, insecure }, one entry if both have the same. */
export function deviceProblems(microphone, camera) {
  const both = microphone === camera && isProblem(camera);
  const found = both ? [['both', camera]] : [['camera', camera], ['microphone', microphone]].filter(([, status]) => isProblem(status));
  return found.map(([what, problem]) => ({
    text: t(WHOLE.includes(problem) ? `problem.${problem}` : `problem.${problem}.${what}`),
    action: { none: t('look_again'), refused: t('again'), dismissed: t('again'), system: t('again'), busy: t('again') }[problem],
    sources: both ? ['microphone', 'camera'] : [what],
    insecure: problem === 'insecure' && location.protocol === 'http:',
  }));
}

const SHOWN = 3; // addresses of the server

const WAITING = {
  server_stopping: 'server_stopping',
  server_draining: 'draining',
  media_restarted: 'media',
  media_unavailable: 'media',
  database_unavailable: 'database',
  room_full: 'room_full',
  server_full: 'server_full',
  too_many_connections: 'server_full',
  too_many_joins: 'joins',
  room_elsewhere: 'elsewhere',
  ice_timeout: 'blocked',
  dtls_failed: 'blocked',
  lobby_timeout: 'lobby', // the page knocks again
};

/**
 * Why there is no call while the page keeps trying: { key, title, text, tech }. `since_s`: for how many seconds; `answers`:
 * whether the server answers HTTP requests; `unreached`: the server's event of that name; `inCall`: whether the user was in the
 * room.
 */
export function waitingText(error, { since_s, answers, unreached, room, inCall }) {
  let key = WAITING[error.code] ?? (inCall ? 'reconnecting' : answers ? 'refusing' : 'unreachable');
  if (navigator.onLine === false) key = 'offline';
  if (key === 'blocked') return blockedText(unreached);
  return { key, title: t(`wait.${key}.title`, { room }), text: t(`wait.${key}.text`, { room, count: since_s }), tech: null };
}

/** Why there is no media path, by the server's event `unreached`; without it, only that there is none. */
export function blockedText(unreached) {
  const { cause = '', addresses = [], tcp = false } = unreached ?? {};
  const of = (key) => (has(key) ? t(key, { addresses: list(addresses.slice(0, SHOWN)) }) : '');
  const text = [t('wait.blocked.text'), of(`wait.blocked.${cause}`)].filter(Boolean).join(' ');
  return { key: 'blocked', title: t('wait.blocked.title'), text, tech: (tcp && of(`wait.blocked.admin.${cause}_tcp`)) || of(`wait.blocked.admin.${cause}`) || null };
}

/** Texts by `Room.trouble`, which tells what is under repair. They claim that media flows, or not, only if that was measured. */
const REPAIRED = { media: 'stuck', connection: 'resuming', unknown: 'cut', all: 'silent' };

export function troubleText(trouble, since_s) {
  const key = REPAIRED[trouble];
  return { key, title: t(trouble === 'media' ? 'wait.stuck.title' : 'wait.resuming.title'), text: t(`wait.${key}.text`, { count: since_s }) };
}

const LINK = ['request', 'another_link'];
const ENDS = {
  left: ['rejoin', 'another'],
  stopped: ['join', 'another'], // the user did not wait any longer
  lobby_left: ['ask', 'another'],
  moved: ['move', 'another'],
  other_tab: ['move', 'anew'],
  bad_name: ['change', 'another'],
  no_webrtc: ['again'],
  token_expired: LINK,
  token_revoked: LINK,
  token_used: LINK,
  token_required: LINK,
  token_room: LINK,
  token_not_yet_valid: ['again', 'another_link'],
  room_deleted: ['another'],
  call_ended: ['another'],
  time_over: ['another'],
  company_disabled: ['again', 'another'],
  quota_exceeded: ['again', 'another'],
  removed: ['another'],
  room_locked: ['again', 'another'],
  lobby_refused: ['ask', 'another'],
  lobby_timeout: ['again', 'another'],
  not_allowed: LINK,
  uninvited: ['another'],
};

const JOINING = ['rejoin', 'join', 'ask', 'move', 'again'];

/**
 * Why the call is over: { key, title, text, actions }; the first action is the most helpful one. `own`: the user ended it for
 * everyone; `invited`: the user's name is their invitation's; `lost`: that does not admit them again.
 */
export function endText({ code, own = false, invited = false, lost = false }, room) {
  const key = code in ENDS ? code : code.startsWith('token') ? 'token' : 'other';
  const all = ENDS[code] ?? (key === 'token' ? LINK : ['rejoin', 'another']);
  const actions = all.filter((one) => (!lost || !JOINING.includes(one)) && (!invited || one !== 'anew'));
  const texts = [t(`end.${key}.${own ? 'own' : 'text'}`, { room }), lost && t('end.lost')];
  return { key, title: t(`end.${key}.title`, { room }), text: texts.filter(Boolean).join(' '), actions };
}

/** The action that leads into the call after an ending, or '' if none can. 'again': the reason may be gone soon. */
export function remedyOf(code) {
  const [first] = endText({ code }, '').actions;
  return JOINING.includes(first) ? first : '';
}
