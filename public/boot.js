/**
 * Entry point. If a part of the page cannot be loaded, a sentence with a button takes its place, and the page reloads once the
 * server responds: browsers remember that a module could not be fetched. Without imports, which might be missing as well.
 */

const KEY = 'sfu.again'; // time of the last automatic reload
const LEAST_MS = 60_000; // between two of them
const PAUSE_MS = 1_000;
const ANSWER_MS = 3_000;

const box = document.getElementById('unloaded');

/** Whether the last attempt was long ago. */
function due() {
  try {
    const [last, now] = [sessionStorage.getItem(KEY), String(Date.now())];
    sessionStorage.setItem(KEY, now);
    return Number(now) - Number(last) > LEAST_MS && sessionStorage.getItem(KEY) === now;
  } catch {
    return false; // without storage the page might reload for ever: the button is left
  }
}

async function answers() {
  const answer = await fetch(new URL('health', import.meta.url), { signal: AbortSignal.timeout?.(ANSWER_MS) }).catch(() => null);
  return Boolean(answer?.ok);
}

let failed = false;

/** Reloads the page once the server responds, unless that did not help a moment ago, or somebody may be typing. */
async function startOver() {
  if (failed) return;
  failed = true;
  box.classList.add('is-stuck');
  while (!(await answers())) await new Promise((resolve) => setTimeout(resolve, PAUSE_MS));
  if (document.getElementById('join-view')?.hidden !== false && due()) location.reload();
}

/** Chooses the sentence's language among those in index.html. */
function speak() {
  const said = /** @type {HTMLElement[]} */ ([...box.querySelectorAll('[lang]')]);
  const wanted = (navigator.languages ?? []).map((one) => one.slice(0, 2)).find((one) => said.some(({ lang }) => lang === one)) ?? 'en';
  for (const one of said) one.hidden = one.lang !== wanted;
}

speak();
box.querySelector('a').addEventListener('click', (event) => {
  event.preventDefault(); // a reload keeps the call, which following the link would not
  location.reload();
});
addEventListener('unloaded', startOver);
const sheet = /** @type {HTMLLinkElement} */ (document.querySelector('link[rel=stylesheet]')).sheet;
if (sheet) import('./main.js').catch(startOver);
else document.body.replaceChildren(box), startOver();
