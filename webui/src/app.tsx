import { effect, signal } from "@preact/signals";
import { Component, type ComponentChildren, type ComponentType } from "preact";
import { useEffect } from "preact/hooks";
import { ApiError, askLogin, confirmed, login } from "./api/client";
import { t } from "./i18n";
import { LoginScreen } from "./screens/login";
import { Overview } from "./screens/overview";
import { Shell } from "./shell";
import { forget } from "./state/data";
import { watch } from "./state/live";
import { route } from "./state/route";
import { Button, Loading, Trouble } from "./ui/basics";

type Screen = ComponentType<{ path: string[] }>;

/** First segment of the address to its screen; all but the first view are loaded when they are wanted. */
const SCREENS: Record<string, () => Promise<Screen>> = {
  jobs: async () => (await import("./screens/jobs")).Jobs,
  sessions: async () => (await import("./screens/sessions")).Sessions,
  new: async () => (await import("./screens/new")).NewBackup,
  backups: async () => (await import("./screens/backups")).Backups,
  snapshots: async () => (await import("./screens/snapshots")).Snapshots,
  writers: async () => (await import("./screens/inventory")).Writers,
  providers: async () => (await import("./screens/inventory")).Providers,
  repositories: async () => (await import("./screens/repositories")).Repositories,
  access: async () => (await import("./screens/access")).Access,
  audit: async () => (await import("./screens/audit")).Audit,
  webhooks: async () => (await import("./screens/webhooks")).Webhooks,
  about: async () => (await import("./screens/about")).About,
};

const loaded = signal<Readonly<Record<string, Screen>>>({ "": Overview });
const failed = signal<ApiError | null>(null);

effect(() => {
  const name = route.value.path[0] ?? "";
  if (loaded.peek()[name] || !SCREENS[name]) return;
  failed.value = null;
  SCREENS[name]!().then(
    (screen) => (loaded.value = { ...loaded.peek(), [name]: screen }),
    (cause: unknown) => (failed.value = new ApiError(0, { title: t("This screen could not be loaded."), detail: String(cause), hint: t("The daemon may have been renewed: reload the page.") }, "")),
  );
});

/** A fault of this page itself takes one screen away, and says so; navigation and what is frozen stay. */
class Boundary extends Component<{ children: ComponentChildren; place: string }, { fault: unknown }> {
  static override getDerivedStateFromError = (fault: unknown) => ({ fault });
  override componentDidUpdate(before: { place: string }): void {
    if (before.place !== this.props.place && this.state.fault) this.setState({ fault: undefined });
  }
  override render() {
    const { fault } = this.state;
    if (!fault) return this.props.children;
    return (
      <>
        <Trouble error={new ApiError(0, { title: t("This screen has a fault."), detail: String(fault), hint: t("What the daemon does is not touched by it. Reload the page, or take another screen.") }, "")} />
        <Button onClick={() => location.reload()}>{t("Reload")}</Button>
      </>
    );
  }
}

function Current() {
  const { path } = route.value;
  const name = path[0] ?? "";
  const Screen = loaded.value[name];
  if (Screen) return <Screen path={path.slice(1)} />;
  if (failed.value) return <Trouble error={failed.value} />;
  if (SCREENS[name]) return <Loading />;
  return <Trouble error={new ApiError(404, { title: t("There is no such screen."), detail: location.hash }, "")} />;
}

const ASK_AGAIN_MS = 3000;

export function App() {
  const who = login.value;
  useEffect(() => {
    if (!who) {
      forget();
      return;
    }
    if (confirmed.value) return watch();
    let again: ReturnType<typeof setTimeout> | undefined;
    const ask = (): void => void askLogin().catch(() => (again = setTimeout(ask, ASK_AGAIN_MS)));
    ask();
    return () => clearTimeout(again);
  }, [who?.principal, confirmed.value]);
  return who ? <Shell><Boundary place={route.value.path.join("/")}><Current /></Boundary></Shell> : <LoginScreen />;
}
