# SPDX-License-Identifier: Apache-2.0
"""noVNC's own WebSocket in a browser, moving 64 MiB through a console and back with checksums at both ends."""

from pathlib import Path

from support.browser import Browser
from support.bulk import BULK_BYTES, SummingEcho, shorten_all
from support.processes import wait_until
from support.proxy import InProcessProxy

WEB_ROOT = Path("/usr/share/novnc")
GREETING_BYTES = 12
DEADLINE_MS = 90_000
# Less than the proxy reads at once, so that neither side takes all of it.
SHORT_BYTES = 32768
# noVNC 1.3 has a queue of 10 KiB for what it sends, and lengths and sends in other words than later ones.
EXCHANGE = """
async ([path, totalBytes, greetingBytes, timeoutMs]) => {
    // page.evaluate() has no deadline of its own.
    const inTime = (promise, what) => Promise.race([promise, new Promise((_resolve, reject) => {
        setTimeout(() => reject(new Error(`no ${what} within ${timeoutMs} ms`)), timeoutMs);
    })]);
    const { default: Websock } = await import(location.origin + '/core/websock.js');
    const sock = new Websock();
    const sent = new Uint8Array(totalBytes);
    for (let at = 0; at < totalBytes; at += 65536) {
        crypto.getRandomValues(sent.subarray(at, at + 65536));
    }
    const received = new Uint8Array(greetingBytes + totalBytes);
    let sentBytes = 0, receivedBytes = 0;
    const push = () => {
        // What is on its way is less than noVNC keeps for what has come.
        while (sentBytes < totalBytes && sentBytes - receivedBytes < 2 ** 23) {
            const message = sent.subarray(sentBytes, sentBytes + 2049 + (sentBytes % 8191));
            sentBytes += message.length;
            if (sock.sQpushBytes) {
                sock.sQpushBytes(message);
                sock.flush();
            } else {
                sock.send(message);
            }
        }
    };
    const closed = new Promise((resolve) => {
        sock.on('close', (event) => resolve([event.code, event.reason]));
    });
    await inTime(new Promise((resolve, reject) => {
        sock.on('error', () => reject(new Error('the WebSocket failed')));
        sock.on('message', () => {
            const size = sock.rQlen ?? sock._rQlen();
            received.set(sock.rQshiftBytes(size), receivedBytes);
            receivedBytes += size;
            if (receivedBytes === received.length) {
                resolve();
            } else {
                push();
            }
        });
        sock.open('ws://' + location.host + path, ['binary']);
    }), 'echo of everything');
    const sum = async (bytes) => {
        const digest = new Uint8Array(await crypto.subtle.digest('SHA-256', bytes));
        return Array.from(digest, (byte) => byte.toString(16).padStart(2, '0')).join('');
    };
    sock.close();
    const greeting = String.fromCharCode(...received.subarray(0, greetingBytes));
    return {
        greeting,
        sent: await sum(sent),
        received: await sum(received.subarray(greetingBytes)),
        close: await inTime(closed, 'close'),
    };
}
"""


def test_novncs_websocket_loses_nothing(browser: Browser) -> None:
    assert WEB_ROOT.is_dir(), "novnc is not installed (see bindep.txt)"
    with (
        InProcessProxy(WEB_ROOT) as proxy,
        SummingEcho(lambda sock: shorten_all(sock, proxy.novnc_port, SHORT_BYTES)) as server,
    ):
        tab = browser.open(f"http://127.0.0.1:{proxy.novnc_port}/console.html")
        result = tab.page.evaluate(
            EXCHANGE, [f"/?token={proxy.issue(server)}", BULK_BYTES, GREETING_BYTES, DEADLINE_MS]
        )
        assert result["greeting"] == "RFB 003.008\n"
        assert server.heard_bytes == BULK_BYTES
        assert result["sent"] == server.heard_sum() == result["received"]
        # Closed without a code by noVNC, answered by the proxy.
        assert result["close"][0] in (1000, 1005)
        assert not tab.violations
        wait_until(lambda: proxy.counter.total == 0 and not server.open_connections, 30, "both sides end")
