import { useState } from "preact/hooks";
import { ApiError, logIn, lostLogin } from "../api/client";
import { t } from "../i18n";
import { Preferences } from "../shell";
import { Button, Field, Note, Trouble, willArrive } from "../ui/basics";

export function LoginScreen() {
  const [token, setToken] = useState("");
  const [error, setError] = useState<ApiError | null>(null);
  const [asked, setAsked] = useState<"token" | "certificate">("token");
  const attempt = async (given: string | null): Promise<void> => {
    setAsked(given === null ? "certificate" : "token");
    try {
      await logIn(given);
      willArrive();
      setError(null);
    } catch (cause) {
      setError(cause as ApiError);
    }
  };
  return (
    <div class="login-page">
      <main class="login">
        <h1 class="brand"><Mark /> quiesced</h1>
        <p class="quiet">{t("Consistent backups of {host}", { host: location.host })}</p>
        {lostLogin.value && <Note tone="warn" icon="warn">{t("Your login has ended. Log in again to go on where you were.")}</Note>}
        <form
          onSubmit={(event) => {
            event.preventDefault();
            if (token.trim()) void attempt(token.trim());
          }}
        >
          <Field label={t("Token")} hint={t("The first start writes one for the administrator, in pki/admin.token beneath the state directory.")}>
            {(id) => (
              <input id={id} type="password" name="token" autocomplete="current-password" autofocus spellcheck={false} value={token} onInput={(event) => setToken(event.currentTarget.value)} />
            )}
          </Field>
          <Button kind="main" type="submit">{t("Log in")}</Button>
        </form>
        <p class="or"><span>{t("or")}</span></p>
        <Button onClick={() => attempt(null)}>{t("Use this browser's client certificate")}</Button>
        {error?.status === 401 ? (
          <Note tone="bad" icon="failed">
            <strong role="alert">{t("Not accepted.")}</strong> {asked === "certificate" ? t("This browser has presented no client certificate that is known here.") : t("This token is not known here, or it has ended.")}
          </Note>
        ) : (
          <Trouble error={error} />
        )}
      </main>
      <footer class="login-foot"><Preferences /></footer>
    </div>
  );
}

export function Mark() {
  return (
    <svg class="mark" viewBox="0 0 32 32" width="26" height="26" aria-hidden="true">
      <rect width="32" height="32" rx="7" />
      <path d="M9 8.5v15M23 8.5v15" />
      <path class="between" d="M13.5 16h5" />
    </svg>
  );
}
