// What pages do beyond plain HTML: count down, follow changes, copy. Everything works without it.
// What a form led to is said once, not again at every refresh.
if (new URLSearchParams(location.search).has('did')) history.replaceState(null, '', location.pathname);
const loaded = performance.now();
const serverAtLoad = Date.parse(document.body.dataset.now ?? '') || Date.now();
const now = () => serverAtLoad + (performance.now() - loaded);
const two = (value) => String(value).padStart(2, '0');

function figure(seconds) {
  const [hours, minutes, rest] = [Math.floor(seconds / 3600), Math.floor((seconds % 3600) / 60), seconds % 60];
  return hours > 0 ? `${hours}:${two(minutes)}:${two(rest)}` : `${two(minutes)}:${two(rest)}`;
}

function tick() {
  for (const element of document.querySelectorAll('[data-until]')) {
    const seconds = Math.max(0, Math.ceil((Date.parse(element.dataset.until) - now()) / 1000));
    if (element instanceof HTMLProgressElement) element.value = seconds;
    else if (element.textContent !== figure(seconds)) element.textContent = figure(seconds);
  }
}

// A page is not replaced under the reader's hands: while something is typed, open or selected, it waits.
const busy = () => {
  const field = document.activeElement;
  const typing = field instanceof HTMLTextAreaElement || (field instanceof HTMLInputElement && field.type !== 'radio' && field.type !== 'checkbox');
  const typed = [...document.querySelectorAll('main textarea, main input:not([type=hidden])')].some((input) =>
    input.type === 'checkbox' || input.type === 'radio' ? input.checked !== input.defaultChecked : input.value !== input.defaultValue,
  );
  return typing || typed || document.querySelector('main details.confirm[open]') !== null;
};

let fetching = false;
let again = false;
async function refresh() {
  if (fetching || busy()) {
    again = true;
    return;
  }
  fetching = true;
  again = false;
  try {
    const answer = await fetch(location.href, { headers: { accept: 'text/html' }, redirect: 'manual' });
    if (answer.type === 'opaqueredirect' || answer.status === 401) return void location.reload();
    if (!answer.ok || busy()) return;
    const fresh = new DOMParser().parseFromString(await answer.text(), 'text/html');
    const open = [...document.querySelectorAll('main details[open]')].map((details) => details.querySelector('summary')?.textContent);
    for (const name of ['main', 'footer', 'header.bar nav']) {
      const [from, to] = [fresh.querySelector(name), document.querySelector(name)];
      if (from && to && from.innerHTML !== to.innerHTML) to.replaceWith(document.adoptNode(from));
    }
    for (const details of document.querySelectorAll('main details')) if (open.includes(details.querySelector('summary')?.textContent)) details.open = true;
    tick();
  } catch {
    // The server is away; the stream comes back by itself and asks again.
  } finally {
    fetching = false;
  }
}

if ('live' in document.body.dataset) {
  const stream = new EventSource('/events');
  stream.addEventListener('changed', refresh);
  let lost = false;
  stream.addEventListener('error', () => {
    lost = true;
  });
  stream.addEventListener('open', () => {
    if (lost) void refresh();
    lost = false;
  });
  setInterval(() => again && void refresh(), 1000);
  // What only time changes (a request that lapsed, a review that became overdue) is looked up now and then.
  setInterval(() => document.visibilityState === 'visible' && void refresh(), 30000);
}

for (const button of document.querySelectorAll('[data-copy]')) {
  button.hidden = false;
  button.addEventListener('click', async () => {
    await navigator.clipboard.writeText(button.dataset.copy);
    button.textContent = 'Copied';
    setTimeout(() => {
      button.textContent = 'Copy';
    }, 2000);
  });
}
setInterval(tick, 500);
tick();
