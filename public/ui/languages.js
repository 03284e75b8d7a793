/** The language buttons of the views without a call. */

import { missing } from '../base/dom.js';
import { LANGUAGES, language, speak, t, texts } from '../i18n/texts.js';

async function choose({ currentTarget: key }) {
  const overlay = await import('./overlay.js').catch(missing);
  const items = Object.entries(LANGUAGES).map(([code, label]) => ({ label, checked: code === language, then: () => speak(code, true).catch(missing) }));
  overlay?.openMenu(key, items, { label: t('settings.language') });
}

function write() {
  for (const one of document.querySelectorAll('.language-name')) one.textContent = LANGUAGES[language];
}

for (const one of document.querySelectorAll('.language')) one.addEventListener('click', choose);
texts.addEventListener('change', write);
write();
