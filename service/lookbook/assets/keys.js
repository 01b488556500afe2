/** The API key, where the service asks for one: kept in this tab's session storage, sent as a header, never in a URL. */

const STORED = "modiste-key";

export const keysAreAsked = document.querySelector('meta[name="modiste-keys"]').content === "required";

export const currentKey = () => sessionStorage.getItem(STORED);

let problem = "";
let asking = null;

/** The key; asks for it where there is none. null: whoever was asked would rather not. All who wait share one dialog. */
export async function obtainKey() {
  const key = currentKey();
  if (key !== null) return key;
  asking ??= ask().finally(() => (asking = null));
  return asking;
}

/** The service would not have the key, for the reason that it gives. */
export function forgetKey(reason) {
  sessionStorage.removeItem(STORED);
  problem = reason;
}

function ask() {
  const dialog = document.getElementById("key-dialog");
  const input = document.getElementById("key");
  document.getElementById("key-problem").textContent = problem;
  input.value = "";
  dialog.showModal();
  return new Promise((resolve) => {
    const finished = new AbortController();
    const listen = (target, type, heard) => target.addEventListener(type, heard, { signal: finished.signal });
    listen(document.getElementById("key-cancel"), "click", () => dialog.close());
    listen(document.getElementById("key-form"), "submit", (event) => {
      event.preventDefault();
      sessionStorage.setItem(STORED, input.value.trim());
      dialog.close();
    });
    listen(dialog, "close", () => {
      finished.abort();
      input.value = "";
      problem = "";
      resolve(currentKey());
    });
  });
}
