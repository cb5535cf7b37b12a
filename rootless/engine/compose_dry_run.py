"""--dry-run: what up and down would do, told and not done."""

from rootless.compose.records import Project
from rootless.engine.compose_container import container_name, image_name
from rootless.engine.compose_down import DownOptions, select
from rootless.engine.compose_images import MISSING, pull_policy
from rootless.engine.compose_labels import members, networks_of, of_service, volumes_of
from rootless.engine.compose_plan import Plan, in_order, plan_service
from rootless.engine.compose_resources import used_networks, used_volumes
from rootless.engine.compose_tasks import Tell
from rootless.engine.compose_up import UpOptions, check_support, choose, existing_of, recreate_of, service_digest
from rootless.engine.context import Engine
from rootless.errors import NotFound


def up(engine: Engine, project: Project, options: UpOptions, tell: Tell) -> None:
    """Tell what up would do. Files of secrets are not read, so that a change of them is not seen."""
    chosen = choose(project, options)
    check_support(project, chosen, tell)
    for name in chosen:
        _image(engine, project, name, options, tell)
    for network in used_networks(project):
        if not _is_there(engine, network.name):
            tell(f"Network {network.name}", "Creating" if not network.external else "declared as external, not found")
    known = {volume.name for volume in engine.volumes.list()}
    for volume in used_volumes(project):
        if volume.name not in known:
            tell(f"Volume {volume.name}", "Creating" if not volume.external else "declared as external, not found")
    for name in in_order(chosen, {name: project.services[name].depends_on for name in chosen}):
        _containers(engine, project, name, options, tell)


def _is_there(engine: Engine, network: str) -> bool:
    try:
        engine.networks.find(network)
    except NotFound:
        return False
    return True


def _image(engine: Engine, project: Project, name: str, options: UpOptions, tell: Tell) -> None:
    service = project.services[name]
    image = image_name(project, service)
    missing = engine.images.find(image) is None
    if service.build is not None and (options.build or (missing and not service.image)):
        tell(f"Image {image}", "Building")
    elif missing or pull_policy(service, options.pull) not in (MISSING, "never", "build"):
        tell(f"Image {image}", "Pulling")


def _containers(engine: Engine, project: Project, name: str, options: UpOptions, tell: Tell) -> None:
    service = project.services[name]
    plan = _plan(engine, project, name, options)
    for found in plan.remove:
        tell(f"Container {found.name}", "Removing")
    for found in plan.recreate:
        tell(f"Container {found.name}", "Recreate")
    for number in plan.create:
        tell(f"Container {container_name(project, service, number)}", "Creating")
    numbers = [found.number for found in plan.recreate] + list(plan.create)
    for found in plan.keep:
        if found.is_live or not options.start:
            tell(f"Container {found.name}", "Running" if found.is_live else "Exists")
        else:
            numbers.append(found.number)
    for number in sorted(numbers) if options.start else ():
        tell(f"Container {container_name(project, service, number)}", "Starting")


def _plan(engine: Engine, project: Project, name: str, options: UpOptions) -> Plan:
    service = project.services[name]
    image = engine.images.find(image_name(project, service))
    existing = [existing_of(member) for member in of_service(members(engine, project.name), name)]
    digest = service_digest(service, ())
    if service.secrets or service.configs:
        digest = existing[0].config_hash if existing else digest
    count = options.scale.get(name, service.replicas)
    return plan_service(existing, count, digest, image.id if image else "", recreate_of(name, options))


def down(engine: Engine, name: str, project: Project | None, options: DownOptions, tell: Tell) -> None:
    """Tell what down would do."""
    for member in select(engine, name, project, options.services, oneoff=True):
        if member.is_live:
            tell(f"Container {member.name}", "Stopping")
        tell(f"Container {member.name}", "Removing")
    if options.services:
        return
    for network in networks_of(engine, name):
        tell(f"Network {network.name}", "Removing")
    for volume in volumes_of(engine, name) if options.volumes else ():
        tell(f"Volume {volume.name}", "Removing")
