/** The link to the secure page. */

import { element, within } from '../base/dom.js';
import { t } from '../i18n/texts.js';

/** A link to this page over https. It is hidden until the browser has reached the server that way: it may have no certificate. */
export function secureLink() {
  const link = element('a', 'btn btn--small', t('open_secure'));
  link.href = location.href.replace(/^http:/, 'https:');
  link.hidden = true;
  const show = () => (link.hidden = false);
  fetch(new URL('health', link.href), { mode: 'no-cors', signal: within(5_000) }).then(show, () => {});
  return link;
}
