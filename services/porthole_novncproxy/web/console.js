// SPDX-License-Identifier: Apache-2.0
// The console page: noVNC's RFB on one WebSocket, a few tools, and words for whatever goes wrong.
//
// Why: noVNC's own pages say "Something went wrong" for each of a dozen causes, since a browser does not show a page
// the status of a refused upgrade and noVNC does not pass the close code on. Here the page opens the WebSocket itself,
// so that it sees the close code, and asks the proxy by a plain GET when the upgrade was refused.
// It talks to its own origin only, whatever its address says.

import {wordsFor, wordsForClose, wordsForRefusal} from './console_words.js';

// The proxy asks two daemons and dials, each with a deadline of its own.
const PROBE_TIMEOUT_MS = 40000;
// noVNC ends a session on its own before the WebSocket's close event, which alone knows why.
const CLOSE_GRACE_MS = 1000;
const TOOLS_TIMEOUT_MS = 10000;

const element = (id) => document.getElementById(id);
const query = [location.search, location.hash].map((text) => new URLSearchParams(text.slice(1)));

let RFB = null;
// Whether this noVNC has vnc.html: npm's package has no pages.
let hasTools = false;
// Resolves when that is known.
let toolsSought = Promise.resolve();
// {socket, rfb, opened, settled, security}: the attempt or session that counts; events of older ones are ignored.
let current = null;

// Last one wins, the fragment over the query, as in noVNC's pages.
function parameter(name) {
    return query.flatMap((part) => part.getAll(name)).at(-1) ?? null;
}

function isSet(name, fallback) {
    const value = parameter(name);
    return value === null ? fallback : !['', '0', 'false', 'off'].includes(value);
}

// `path` is taken from this page's folder, so that it works below a sub-path too. Assigning the parts of a URL, instead
// of joining strings, leaves no way for a crafted path to name another host.
function consoleUrl() {
    const token = parameter('token');
    const path = parameter('path') ?? (token === null ? 'websockify' : `websockify?token=${encodeURIComponent(token)}`);
    const [where, ...rest] = path.split('?');
    const url = new URL('.', location.href);
    url.pathname = where.startsWith('/') ? where : url.pathname + where;
    url.search = rest.join('?');
    return url;
}

function hasToken() {
    return parameter('path') !== null || parameter('token') !== null || /(^|;\s*)token=/.test(document.cookie);
}

function setState(state, text) {
    document.body.dataset.state = state;
    element('state').textContent = text;
    element('ctrl-alt-del').disabled = state !== 'connected';
    element('full-screen').disabled = state !== 'connected' || !document.fullscreenEnabled;
    element('reconnect').disabled = state === 'loading' || state === 'connecting';
    showTools(state === 'connected');
}

// The link is in its place as soon as it is known that it leads somewhere.
function showTools(wanted) {
    element('all-tools').dataset.wanted = String(wanted);
    element('all-tools').hidden = !(wanted && hasTools);
}

async function findTools() {
    try {
        const answer = await fetch('vnc.html', {
            redirect: 'error',
            referrerPolicy: 'no-referrer',
            signal: AbortSignal.timeout(TOOLS_TIMEOUT_MS),
        });
        // Read to its end, so that the connection is free again and the page is in the cache.
        await answer.text();
        hasTools = answer.ok;
    } catch {
        hasTools = false;
    }
    showTools(element('all-tools').dataset.wanted === 'true');
}

function showPanel(words, detail = '') {
    element('panel-title').textContent = words.title;
    element('panel-reason').textContent = words.reason;
    element('panel-next').textContent = words.next;
    element('panel-detail').textContent = detail;
    element('panel-action').hidden = !words.retry;
    element('credentials').hidden = true;
    element('panel').hidden = false;
    (words.retry ? element('panel-action') : element('panel-title')).focus();
}

function showEnd(state, words, detail) {
    setState(state, state === 'refused' ? 'Not connected' : 'Ended');
    element('panel-action').textContent = state === 'refused' ? 'Try again' : 'Reconnect';
    element('reconnect').disabled = !words.retry;
    showPanel(words, detail);
}

function connect() {
    const url = consoleUrl();
    const socketUrl = new URL(url);
    socketUrl.protocol = url.protocol === 'https:' ? 'wss:' : 'ws:';
    leave();
    setState('connecting', 'Connecting…');
    element('panel').hidden = true;
    const session = {socket: new WebSocket(socketUrl.href, ['binary']), rfb: null, opened: false, settled: false};
    current = session;
    session.socket.addEventListener('open', () => onOpen(session));
    session.socket.addEventListener('close', (event) => settle(session, url, event.code, event.reason));
    session.rfb = new RFB(element('screen'), session.socket, {});
    listen(session, url);
    session.rfb.scaleViewport = element('fit').getAttribute('aria-pressed') === 'true';
    session.rfb.viewOnly = isSet('view_only', false);
    session.rfb.showDotCursor = true;
    session.rfb.background = 'transparent';
}

function leave() {
    const session = current;
    current = null;
    if (session && !session.settled) {
        session.rfb?.disconnect();
        session.socket.close();
    }
}

function onOpen(session) {
    session.opened = true;
    if (session === current && typeof session.socket.onmessage !== 'function') {
        session.settled = true;
        session.socket.close();
        showEnd('refused', wordsFor('oldNoVNC'));
    }
}

function listen(session, url) {
    const on = (name, handle) => session.rfb.addEventListener(name, (event) => {
        if (session === current && !session.settled) handle(event);
    });
    on('connect', () => {
        setState('connected', 'Connected');
        element('panel').hidden = true;
        session.rfb.focus();
    });
    on('desktopname', (event) => showName(event.detail.name));
    on('credentialsrequired', (event) => askCredentials(event.detail.types ?? ['password']));
    on('securityfailure', (event) => { session.security = event.detail.reason ?? ''; });
    on('serververification', async () => {
        session.settled = true;
        session.rfb.disconnect();
        await toolsSought;
        if (session !== current) return;
        showEnd('refused', wordsFor(hasTools ? 'unverified' : 'unverifiedHere'));
        showTools(true);
    });
    on('disconnect', () => setTimeout(() => settle(session, url, 1005, ''), CLOSE_GRACE_MS));
}

// The one place where a session ends, whichever of its two events comes first.
async function settle(session, url, code, reason) {
    if (session !== current || session.settled) return;
    session.settled = true;
    if (session.security !== undefined) {
        showEnd('refused', wordsFor('security'), session.security);
    } else if (session.opened && code !== 1006) {
        const words = code === 1005 ? wordsFor('notUnderstood') : wordsForClose(code, reason);
        showEnd('ended', words, reason ? `${code}: ${reason}` : '');
    } else {
        setState('connecting', 'Asking the proxy why…');
        const answer = await probe(url);
        if (session === current) explain(session.opened, answer);
    }
}

// Resolves to {code, reason}; code 0 when there is no answer at all.
async function probe(url) {
    try {
        const answer = await fetch(url, {
            headers: {Accept: 'application/json'},
            cache: 'no-store',
            redirect: 'error',
            referrerPolicy: 'no-referrer',
            signal: AbortSignal.timeout(PROBE_TIMEOUT_MS),
        });
        const isJson = (answer.headers.get('Content-Type') ?? '').startsWith('application/json');
        const body = isJson ? await answer.json() : {};
        return {code: answer.status, reason: typeof body.reason === 'string' ? body.reason : ''};
    } catch (error) {
        return {code: 0, reason: error.name === 'TimeoutError' ? 'no answer in time' : ''};
    }
}

function explain(wasOpen, {code, reason}) {
    const detail = code === 0 || code === 200 ? reason : `${code}${reason ? `: ${reason}` : ''}`;
    const state = wasOpen ? 'ended' : 'refused';
    if (code === 0) {
        showEnd(state, wordsFor('unreachable'), detail);
    } else if (wasOpen && code === 200) {
        showEnd(state, wordsFor('lost'));
    } else {
        showEnd(state, wordsForRefusal(code, reason), detail);
    }
}

function showName(name) {
    // QEMU names its desktop "QEMU (guest)".
    const guest = (/^QEMU \((.+)\)$/.exec(name)?.[1] ?? name).trim() || 'Console';
    element('name').textContent = guest;
    element('name').title = guest;
    document.title = `${guest} – console (noVNC)`;
}

function askCredentials(types) {
    setState('connecting', 'Waiting for a password…');
    element('username-row').hidden = !types.includes('username');
    element('password-row').hidden = !types.includes('password');
    showPanel({
        title: 'The guest’s screen asks for a password',
        reason: 'It is set on the VNC server itself; the console service does not know it.',
        next: '',
        retry: false,
    });
    element('credentials').hidden = false;
    element(types.includes('username') ? 'username' : 'password').focus();
}

function sendCredentials(event) {
    event.preventDefault();
    const credentials = {username: element('username').value, password: element('password').value};
    element('password').value = '';
    element('panel').hidden = true;
    setState('connecting', 'Connecting…');
    current?.rfb.sendCredentials(credentials);
}

function toggleFit() {
    const fit = element('fit').getAttribute('aria-pressed') !== 'true';
    element('fit').setAttribute('aria-pressed', String(fit));
    if (current?.rfb && !current.settled) {
        current.rfb.scaleViewport = fit;
        current.rfb.focus();
    }
}

async function toggleFullScreen() {
    if (document.fullscreenElement) {
        await document.exitFullscreen();
    } else {
        await element('stage').requestFullscreen();
        // Where the browser offers it, Esc and the like then go to the guest; without it full screen works all the same.
        await navigator.keyboard?.lock?.();
    }
    current?.rfb?.focus();
}

// noVNC takes every key, so people without a mouse need one that it does not get.
function releaseKeyboard(event) {
    if (!(event.ctrlKey && event.altKey && event.code === 'KeyM')) return;
    event.preventDefault();
    event.stopImmediatePropagation();
    if (document.fullscreenElement) document.exitFullscreen();
    // Ctrl and Alt are down in the guest; at a blur of the window noVNC lets go of all keys.
    window.dispatchEvent(new Event('blur'));
    element('tools').querySelector('button:enabled')?.focus();
}

function bindTools() {
    element('ctrl-alt-del').addEventListener('click', () => {
        current?.rfb.sendCtrlAltDel();
        current?.rfb.focus();
    });
    element('fit').setAttribute('aria-pressed', String(isSet('scale', true)));
    element('fit').addEventListener('click', toggleFit);
    element('full-screen').addEventListener('click', toggleFullScreen);
    document.addEventListener('fullscreenchange', () => {
        element('full-screen').setAttribute('aria-pressed', String(document.fullscreenElement !== null));
    });
    element('reconnect').addEventListener('click', connect);
    element('panel-action').addEventListener('click', connect);
    element('credentials').addEventListener('submit', sendCredentials);
    window.addEventListener('keydown', releaseKeyboard, {capture: true});
}

async function start() {
    bindTools();
    if (!hasToken()) {
        showEnd('refused', wordsFor('noToken'));
        return;
    }
    const url = consoleUrl();
    const path = (url.pathname + url.search).slice(1);
    element('all-tools').href = `vnc.html?autoconnect=1&path=${encodeURIComponent(path)}`;
    try {
        ({default: RFB} = await import('./core/rfb.js'));
    } catch (error) {
        showEnd('refused', wordsFor('noNoVNC'), error.message);
        return;
    }
    connect();
    toolsSought = findTools();
}

start();
