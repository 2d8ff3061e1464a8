// SPDX-License-Identifier: Apache-2.0
// What the console page says when there is no screen to show: what happened, and what to do next.
//
// Why apart: these are the sentences people act on, so that they can be read and put right in one place. console.js
// looks them up by the status of a refusal, by the close code of a session, or by a word of its own.
// Each is {title, reason, next, retry}; `retry` tells whether trying again with the same link can help.

const NEW_LINK = 'Ask for a new link: open the console again where you opened it, or run ' +
    '“porthole get-vnc-console SERVER”.';
const SOON = 'Try again in a moment. If it stays so, tell the administrator of the console service.';

const REFUSALS = {
    200: {
        title: 'The connection does not get through',
        reason: 'This link is valid and the guest’s screen is there, yet the browser’s WebSocket did not come about. ' +
            'Something between this browser and the console proxy does not pass WebSockets on, or hands the page out ' +
            'under another name than the proxy knows.',
        next: 'Try again. If it stays so, the administrator of the service can look at the reverse proxy (Upgrade, Host and ' +
            'X-Forwarded-Proto headers) and at the options allowed_origins and trusted_proxies.',
        retry: true,
    },
    400: {
        title: 'This address is malformed',
        reason: 'The console proxy does not understand the request that this page’s address leads to.',
        next: NEW_LINK,
        retry: false,
    },
    401: {
        title: 'This link does not open a console any more',
        reason: 'A link works for a few minutes only, and only as long as its guest keeps running where it is. ' +
            'This one has expired, was withdrawn, or is incomplete.',
        next: NEW_LINK,
        retry: false,
    },
    403: {
        title: 'This page may not open the console',
        reason: 'The console proxy takes consoles only from pages under its own name and over the same scheme ' +
            '(http or https) as the link it gave out.',
        next: 'Open the link exactly as you got it. If that is what you did, the administrator of the service can add this ' +
            'name to the option allowed_origins, or its reverse proxy to trusted_proxies.',
        retry: false,
    },
    429: {
        title: 'Too many consoles are open',
        reason: 'The console proxy limits how many consoles a link, a guest, a user and an address may have open.',
        next: 'Close other windows with this console, then try again.',
        retry: true,
    },
    502: {
        title: 'The guest’s screen does not answer',
        reason: 'The link is valid, but the guest’s VNC server refuses connections, or is not protected as the console ' +
            'service asks. The guest may just be starting or shutting down.',
        next: 'Check that the guest is running, then try again. If it stays so, tell the administrator of the console service.',
        retry: true,
    },
    503: {
        title: 'The console service is not complete right now',
        reason: 'The link could not be checked, because a part of the service does not answer. The guest itself is ' +
            'not touched by this.',
        next: SOON,
        retry: true,
    },
    504: {
        title: 'The guest’s screen is silent',
        reason: 'The link is valid, but the guest’s VNC server did not answer in time. The guest’s host may be very ' +
            'busy or cut off.',
        next: SOON,
        retry: true,
    },
};

// The codes of CloseCode in porthole_relay/frames.py; a unit test compares the two.
const CLOSES = {
    1000: {
        title: 'The guest closed its screen',
        reason: 'The VNC server ended the session, as it does when the guest is shut down or powered off.',
        next: 'If the guest is running again, reconnect. If that is refused, ask for a new link.',
        retry: true,
    },
    1001: {
        title: 'The console proxy is restarting',
        reason: 'It closed its consoles in good order. The guest keeps running.',
        next: 'Reconnect: the same link works as long as it has not expired.',
        retry: true,
    },
    1002: {
        title: 'The connection broke the protocol',
        reason: 'The console proxy received bytes that are not valid as WebSocket or VNC data, so it ended the session.',
        next: SOON,
        retry: true,
    },
    1011: {
        title: 'The console was cut off',
        reason: 'The connection between the console proxy and the guest’s VNC server broke, or this browser did not ' +
            'answer the proxy in time. The guest may have crashed, or a network may be down.',
        next: 'Check that the guest is running, then reconnect.',
        retry: true,
    },
    4401: {
        title: 'Access to this console has ended',
        reason: 'The guest was stopped, moved or deleted, or access to it was withdrawn.',
        next: 'If the guest is still there: ' + NEW_LINK[0].toLowerCase() + NEW_LINK.slice(1),
        retry: false,
    },
    4403: {
        title: 'Somebody has ended this session',
        reason: 'A person who may do so has ended it. The guest keeps running.',
        next: 'Ask that person, if you need the console again.',
        retry: true,
    },
    4408: {
        title: 'This session has reached its time limit',
        reason: 'The console service ends sessions after a time that it sets. The guest keeps running.',
        next: 'Reconnect. If that is refused, ask for a new link.',
        retry: true,
    },
    4409: {
        title: 'This session was idle for too long',
        reason: 'The screen did not change and the keyboard was not used for a long time, or the security handshake ' +
            'was not finished in time. The guest keeps running.',
        next: 'Reconnect. If that is refused, ask for a new link.',
        retry: true,
    },
};
CLOSES[1009] = CLOSES[1002];

// The same code for two ends that people act on differently: what the proxy says beside it tells them apart.
const MOVED = {
    title: 'The guest has moved',
    reason: 'It runs on another host now, and this session led to the one it left. The guest itself was not interrupted.',
    next: NEW_LINK,
    retry: false,
};

// The same: no console needs to be open here.
const OLD_LINKS = {
    title: 'Too many old links came from your address',
    reason: 'Many links from your address were not valid, so the console proxy checks only one new link of that address ' +
        'in a second. They may come from other people who share the address with you. This link may well be valid.',
    next: 'Close windows with old links, wait some seconds, then try again.',
    retry: true,
};

const OTHERS = {
    noToken: {
        title: 'This address has no console in it',
        reason: 'A console’s address ends in something like “?path=%3Ftoken%3D…”. It may have been cut off when it ' +
            'was copied.',
        next: 'Open the whole link. If you have none: ' + NEW_LINK[0].toLowerCase() + NEW_LINK.slice(1),
        retry: false,
    },
    noNoVNC: {
        title: 'noVNC did not load',
        reason: 'The console proxy did not hand out noVNC, which draws the screen.',
        next: 'Reload the page. If it stays so, the administrator of the service can check the option “web”.',
        retry: false,
    },
    oldNoVNC: {
        title: 'The noVNC on this server is too old',
        reason: 'This page needs noVNC 1.3 or later.',
        next: 'The administrator of the service can install a later one, or give out links to vnc_lite.html.',
        retry: false,
    },
    unreachable: {
        title: 'The console proxy cannot be reached',
        reason: 'There is no answer from the address of this page.',
        next: 'Check this computer’s network (and VPN, if you use one), then try again.',
        retry: true,
    },
    lost: {
        title: 'The connection was lost',
        reason: 'It broke without a word from the other side, as when a network goes down. The guest keeps running.',
        next: 'Reconnect.',
        retry: true,
    },
    notUnderstood: {
        title: 'noVNC and the guest’s screen do not understand each other',
        reason: 'The session was ended because noVNC could not follow what the VNC server sent or asked for.',
        next: 'Reconnect. If it stays so, tell the administrator of the guest’s host which VNC server this is.',
        retry: true,
    },
    security: {
        title: 'The VNC server refused the password',
        reason: 'The guest’s screen is protected by a password of its own.',
        next: 'Try again with the right one.',
        retry: true,
    },
    unverified: {
        title: 'This VNC server wants its key checked',
        reason: 'It identifies itself by a key, which this page cannot check.',
        next: 'Use “All noVNC tools” below, which asks you about the key.',
        retry: false,
    },
    unverifiedHere: {
        title: 'This VNC server wants its key checked',
        reason: 'It identifies itself by a key, which this page cannot check.',
        next: 'The administrator of the service can install a noVNC with its page vnc.html, which asks about the key.',
        retry: false,
    },
};

const UNKNOWN = {
    title: 'The console could not be opened',
    reason: 'The console proxy, or something in front of it, gave an answer that this page does not know.',
    next: SOON,
    retry: true,
};

const SPENT = {
    title: 'This link has been used',
    reason: 'It opens a console once, or a few times, and has done so: in this browser, or in another one.',
    next: NEW_LINK,
    retry: false,
};

export const wordsForRefusal = (code, reason = '') => {
    if (code === 429 && reason.includes('not valid')) {
        return OLD_LINKS;
    }
    return code === 401 && reason.includes('has been used') ? SPENT : REFUSALS[code] ?? UNKNOWN;
};
export const wordsForClose = (code, reason = '') => {
    if (code === 4403 && reason) {
        // "Ended by NAME: WHY", as the proxy says it; the page shows it as text.
        return {...CLOSES[4403], reason: `${reason.replace(/[.\s]+$/, '')}. The guest keeps running.`};
    }
    return code === 4401 && reason.includes('moved') ? MOVED : CLOSES[code] ?? OTHERS.lost;
};
export const wordsFor = (name) => OTHERS[name];
